// Reads files of rules as Prometheus does, and says what it would refuse in them.
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/rulefmt"
)

func main() {
	refused := false
	for _, path := range os.Args[1:] {
		_, problems := rulefmt.ParseFile(path, false)
		for _, problem := range problems {
			fmt.Println(problem)
			refused = true
		}
	}
	if refused {
		os.Exit(1)
	}
}
