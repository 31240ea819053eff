"""The job protocol: its words (`model`), its tables (`table`), what can be asked (`commands`), and what follows (`decide`)."""
