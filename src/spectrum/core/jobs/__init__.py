"""The job protocol: its words (`model`), its tables (`table`), what can be asked of it (`commands`), and what follows (`decide`)."""
