// Package completion writes scripts that complete commands, flags and their values in a shell.
package completion

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// Write writes the completion script of a program for a shell: bash, zsh or fish.
func Write(w io.Writer, shell string, program *config.Command) error {
	switch shell {
	case "bash":
		bash(w, program)
	case "zsh":
		zsh(w, program)
	case "fish":
		fish(w, program)
	default:
		return fmt.Errorf("%q: want bash, zsh or fish", shell)
	}
	return nil
}

// each calls do for a program's commands that have no subcommands. The words are those behind the program's name.
func each(c *config.Command, do func(c *config.Command, words []string)) {
	for _, command := range c.Commands {
		if len(command.Commands) == 0 {
			do(command, strings.Fields(command.Path)[1:])
		}
		each(command, do)
	}
}

// values says what a flag takes: words from a list, a file, another text, or nothing.
func values(f *kong.Flag) (list []string, file, text bool) {
	switch {
	case f.Enum != "":
		return f.EnumSlice(), false, true
	case f.IsBool():
		return nil, false, false
	}
	return nil, f.PlaceHolder == "FILE" || f.PlaceHolder == "DIR" || f.Name == "data-dir", true
}

func names(commands []*config.Command) string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Name())
	}
	return strings.Join(list, " ")
}

// quote puts a text into single quotes, which a shell does not look into.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// help is the first sentence of a help text.
func help(s string) string {
	first, _, _ := strings.Cut(strings.TrimSuffix(s, "."), ". ")
	return first
}

func bash(w io.Writer, program *config.Command) {
	fmt.Fprintf(w, `_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]} command= word flags=
	COMPREPLY=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $word in
		-*) break ;;
		esac
		command+=${command:+ }$word
		case $command in
`, program.Path)
	for _, c := range program.Commands {
		if len(c.Commands) > 0 {
			fmt.Fprintf(w, "\t\t%s) ;;\n", c.Name())
		}
	}
	fmt.Fprint(w, `		*) break ;;
		esac
	done
	if [ "$cur" = "=" ]; then
		cur=
	elif [ "$flag" = "=" ]; then
		flag=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $command in
`)
	fmt.Fprintf(w, "\t'') COMPREPLY=($(compgen -W '%s help completion man' -- \"$cur\")); return ;;\n",
		names(program.Commands))
	for _, c := range program.Commands {
		if len(c.Commands) > 0 {
			fmt.Fprintf(w, "\t%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", c.Name(), names(c.Commands))
		}
	}
	fmt.Fprint(w, "\tcompletion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\")); return ;;\n")
	lists, files, texts := map[string][]string{}, map[string]bool{}, map[string]bool{}
	var order []string
	each(program, func(c *config.Command, words []string) {
		var flags []string
		for _, f := range c.Flags() {
			flags = append(flags, "--"+f.Name)
			list, file, text := values(f)
			switch _, known := lists[f.Name]; {
			case known || files[f.Name] || texts[f.Name] || !text:
				continue
			case file:
				files[f.Name] = true
			case list != nil:
				lists[f.Name] = list
			default:
				texts[f.Name] = true
			}
			order = append(order, f.Name)
		}
		fmt.Fprintf(w, "\t%s) flags='%s' ;;\n", quote(strings.Join(words, " ")), strings.Join(flags, " "))
	})
	fmt.Fprint(w, "\tesac\n\tcase $flag in\n")
	for _, name := range order {
		switch {
		case files[name]:
			fmt.Fprintf(w, "\t--%s) return ;;\n", name) // the shell's own completion of files
		case texts[name]:
			fmt.Fprintf(w, "\t--%s) compopt +o default 2>/dev/null; return ;;\n", name)
		default:
			fmt.Fprintf(w, "\t--%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", name,
				strings.Join(lists[name], " "))
		}
	}
	fmt.Fprintf(w, `	esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
	esac
}
complete -o default -F _%[1]s %[1]s
`, program.Path)
}

func zsh(w io.Writer, program *config.Command) {
	fmt.Fprintf(w, "#compdef %[1]s\n\n_%[1]s() {\n", program.Path)
	described := func(commands []*config.Command, at int, more ...string) {
		fmt.Fprintf(w, "\tif (( CURRENT == %d )); then\n\t\tlocal -a commands=(\n", at)
		for _, c := range commands {
			fmt.Fprintf(w, "\t\t\t%s\n", quote(c.Name()+":"+help(c.Help)))
		}
		for _, m := range more {
			fmt.Fprintf(w, "\t\t\t%s\n", quote(m))
		}
		fmt.Fprint(w, "\t\t)\n\t\t_describe command commands\n\t\treturn\n\tfi\n")
	}
	described(program.Commands, 2, "help:Explain a command", "completion:Print a completion script",
		"man:Write the manual pages")
	fmt.Fprint(w, "\tlocal command=$words[2]\n\tlocal -i skip=1\n")
	for _, c := range program.Commands {
		if len(c.Commands) > 0 {
			fmt.Fprintf(w, "\tif [[ $command == %s ]]; then\n", c.Name())
			described(c.Commands, 3)
			fmt.Fprint(w, "\tcommand+=\" $words[3]\"\n\tskip=2\n\tfi\n")
		}
	}
	fmt.Fprint(w, "\tshift skip words\n\t(( CURRENT -= skip ))\n\tcase $command in\n")
	fmt.Fprint(w, "\tcompletion) _values shell bash zsh fish ;;\n")
	each(program, func(c *config.Command, words []string) {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments \\\n", quote(strings.Join(words, " ")))
		for _, f := range c.Flags() {
			escape := strings.NewReplacer("[", "(", "]", ")", ":", `\:`)
			spec := "--" + f.Name
			list, file, text := values(f)
			switch {
			case list != nil:
				spec += "=[" + escape.Replace(help(f.Help)) + "]:value:(" + strings.Join(list, " ") + ")"
			case file:
				spec += "=[" + escape.Replace(help(f.Help)) + "]:file:_files"
			case text:
				spec += "=[" + escape.Replace(help(f.Help)) + "]:value: "
			default:
				spec += "[" + escape.Replace(help(f.Help)) + "]"
			}
			fmt.Fprintf(w, "\t\t\t%s \\\n", quote(spec))
		}
		fmt.Fprint(w, "\t\t\t'*:file:_files'\n\t\t;;\n")
	})
	fmt.Fprintf(w, `	esac
}

if [[ $funcstack[1] == _%[1]s ]]; then
	_%[1]s "$@"
else
	compdef _%[1]s %[1]s
fi
`, program.Path)
}

func fish(w io.Writer, program *config.Command) {
	line := func(condition string, args ...string) {
		fmt.Fprintf(w, "complete -c %s -n %s %s\n", program.Path, quote(condition), strings.Join(args, " "))
	}
	first := "__fish_use_subcommand"
	for _, c := range program.Commands {
		line(first, "-f -a", c.Name(), "-d", quote(help(c.Help)))
		if len(c.Commands) > 0 {
			condition := fmt.Sprintf("__fish_seen_subcommand_from %s; and not __fish_seen_subcommand_from %s", c.Name(),
				names(c.Commands))
			for _, sub := range c.Commands {
				line(condition, "-f -a", sub.Name(), "-d", quote(help(sub.Help)))
			}
		}
	}
	line(first, "-f -a help -d 'Explain a command'")
	line(first, "-f -a completion -d 'Print a completion script'")
	line(first, "-f -a man -d 'Write the manual pages'")
	line("__fish_seen_subcommand_from completion", "-f -a 'bash zsh fish'")
	each(program, func(c *config.Command, words []string) {
		var conditions []string
		for _, word := range words {
			conditions = append(conditions, "__fish_seen_subcommand_from "+word)
		}
		if words[0] == "run" {
			conditions = append(conditions, "not __fish_seen_subcommand_from sandbox")
		}
		for _, f := range c.Flags() {
			args := []string{"-l", f.Name, "-d", quote(help(f.Help))}
			list, file, text := values(f)
			switch {
			case list != nil:
				args = append(args, "-x -a", quote(strings.Join(list, " ")))
			case file:
				args = append(args, "-r -F")
			case text:
				args = append(args, "-x")
			}
			line(strings.Join(conditions, "; and "), args...)
		}
	})
}
