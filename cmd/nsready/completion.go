package main

// inspection is told what a command line may hold.
type inspection struct {
	flags       func(*flags)
	subcommands func([]command)
}
