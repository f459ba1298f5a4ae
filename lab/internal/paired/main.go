package paired

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// Main is the main function of a command of that name that compares things, and
// prints a table of them in Markdown. Its flags are -rounds, and -span, which is
// span where it is not given. What does the comparing gets a function that measures
// one comparison and prints its row; where it returns an error the command exits
// with 1.
func Main(name string, span time.Duration, all func(compare func(Comparison)) error) {
	rounds := flag.Int("rounds", 25, "rounds")
	flag.DurationVar(&span, "span", span, "how long each runs in a round")
	flag.Parse()
	if err := run(*rounds, span, all); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(rounds int, span time.Duration, all func(compare func(Comparison)) error) error {
	if rounds < 1 || span <= 0 {
		return errors.New("-rounds and -span must be positive")
	}
	fmt.Println(header)
	return all(func(c Comparison) { fmt.Println(measure(c, rounds, span)) })
}
