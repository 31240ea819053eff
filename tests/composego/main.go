// Composego loads each Compose file with the official parser, interpolation included, and prints the projects as JSON.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	for _, path := range os.Args[1:] {
		options, err := cli.NewProjectOptions([]string{path}, cli.WithOsEnv, cli.WithName("composego"))
		var output []byte
		if err == nil {
			if project, failure := options.LoadProject(context.Background()); failure != nil {
				err = failure
			} else {
				output, err = project.MarshalJSON()
			}
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Println(string(output))
	}
}
