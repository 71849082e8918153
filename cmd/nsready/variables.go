package main

import (
	"fmt"
	"strings"

	"github.com/nsready/nsready/engine/config"
)

// variables are the values that a command line gives to those of a declaration.
type variables []config.Input

func (v *variables) register(f *flags) {
	f.Func("var", "`NAME=VALUE` for a variable of the declaration, as often as there are some; a value that is no text is written as in HCL: -var 'floors=[1, 2]'", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return fmt.Errorf("want NAME=VALUE")
		}
		*v = append(*v, config.Input{Name: name, Value: value})
		return nil
	})
	f.Func("var-file", "`FILE` with values for variables, in lines such as city = \"Pune\"; those in *.auto.nsvars.hcl beside the declaration are read without being named", func(s string) error {
		if s == "" {
			return fmt.Errorf("want the name of a file")
		}
		*v = append(*v, config.Input{File: s})
		return nil
	})
}
