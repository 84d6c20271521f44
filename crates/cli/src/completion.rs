//! Completion scripts for shells, made from the definition of the command line: commands and their options.
//!
//! Command names have colons in them, at which bash breaks words; so its script looks at the line itself.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _, ValueEnum};

use crate::arguments::Arguments;

/// A shell with completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh, after `compinit`.
    Zsh,
    /// fish.
    Fish,
}

/// A command: name, what it does, its options.
struct Entry {
    name: String,
    about: String,
    options: Vec<(String, String)>,
}

fn entries() -> (Vec<Entry>, Vec<(String, String)>) {
    let dozen = Arguments::command();
    let global = options(&dozen);
    let visible = dozen.get_subcommands().filter(|command| !command.is_hide_set());
    let entry = |command: &Command, name: &str| Entry {
        name: name.to_owned(),
        about: command.get_about().map(ToString::to_string).unwrap_or_default(),
        options: options(command),
    };
    let all = visible.flat_map(|command| {
        let names = std::iter::once(command.get_name()).chain(command.get_visible_aliases());
        names.map(|name| entry(command, name)).collect::<Vec<_>>()
    });
    (all.collect(), global)
}

fn options(command: &Command) -> Vec<(String, String)> {
    let help = |argument: &clap::Arg| argument.get_help().map(ToString::to_string).unwrap_or_default();
    let long = |argument: &clap::Arg| Some((format!("--{}", argument.get_long()?), help(argument)));
    command.get_arguments().filter_map(long).collect()
}

fn names(options: &[(String, String)]) -> String {
    options.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
}

/// The script for a shell.
pub fn script(shell: Shell) -> String {
    let (commands, global) = entries();
    match shell {
        Shell::Bash => bash(&commands, &global),
        Shell::Zsh => zsh(&commands, &global),
        Shell::Fish => fish(&commands, &global),
    }
}

fn bash(commands: &[Entry], global: &[(String, String)]) -> String {
    let all = commands.iter().map(|command| command.name.as_str()).collect::<Vec<_>>().join(" ");
    let global = names(global);
    let mut cases = String::new();
    for command in commands.iter().filter(|command| !command.options.is_empty()) {
        // Writing to a String cannot fail.
        _ = writeln!(cases, "    {}) words=\"{} {global}\" ;;", command.name, names(&command.options));
    }
    format!(
        "_dozen() {{
  local line words word n
  read -ra line <<< \"${{COMP_LINE:0:COMP_POINT}}\"
  word=${{line[-1]}}
  [[ ${{COMP_LINE:0:COMP_POINT}} == *[[:space:]] ]] && word='' && line+=('')
  n=$((${{#line[@]}} - 1))
  if ((n == 1)); then
    words=\"{all} {global}\"
  else
    case ${{line[1]}} in
{cases}    *) words=\"{global}\" ;;
    esac
  fi
  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))
  # Readline has the part after the last colon only.
  if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=(\"${{COMPREPLY[@]#\"${{word%:*}}:\"}}\")
  fi
}}
complete -o default -F _dozen dozen
"
    )
}

/// Between single quotes.
fn single(text: &str) -> String {
    text.replace('\'', "'\\''")
}

fn zsh(commands: &[Entry], global: &[(String, String)]) -> String {
    let described = |(name, about): (&str, &str)| format!("    '{}:{}'\n", name.replace(':', "\\:"), single(about));
    let list = |options: &[(String, String)]| -> String {
        options.iter().map(|(name, help)| described((name, help))).collect()
    };
    let all: String = commands.iter().map(|one| described((&one.name, &one.about))).collect();
    let mut cases = String::new();
    for command in commands.iter().filter(|command| !command.options.is_empty()) {
        _ = write!(cases, "    {}) options+=(\n{}    ) ;;\n", command.name, list(&command.options));
    }
    format!(
        "#compdef dozen
_dozen() {{
  local -a commands options
  commands=(
{all}  )
  options=(
{}  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  case ${{words[2]}} in
{cases}  esac
  if [[ ${{words[CURRENT]}} == -* ]]; then
    _describe option options
  else
    _files
  fi
}}
compdef _dozen dozen
",
        list(global)
    )
}

fn fish(commands: &[Entry], global: &[(String, String)]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut script = String::new();
    for (name, help) in global {
        _ = writeln!(script, "complete -c dozen -l {} -d {}", &name[2..], quoted(help));
    }
    for command in commands {
        let (name, about) = (&command.name, quoted(&command.about));
        _ = writeln!(script, "complete -c dozen -n __fish_use_subcommand -f -a {name} -d {about}");
        for (option, help) in &command.options {
            let (option, help) = (&option[2..], quoted(help));
            _ = writeln!(script, "complete -c dozen -n '__fish_seen_subcommand_from {name}' -l {option} -d {help}");
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What bash offers at the end of a line.
    fn offered(line: &str) -> Vec<String> {
        let ask = format!(
            "{}COMP_LINE='{line}' COMP_POINT={} COMP_WORDBREAKS=' :'; _dozen; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(Shell::Bash),
            line.len()
        );
        let said = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash");
        assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_with_colons_and_options() {
        assert_eq!(offered("dozen ps:"), ["scale", "restart", "stop"]);
        assert_eq!(offered("dozen config:s"), ["set"]);
        assert_eq!(offered("dozen whoa"), ["whoami"]);
        assert_eq!(offered("dozen rel"), ["releases"]);
        assert_eq!(offered("dozen exec --d"), ["--dyno"]);
        assert_eq!(offered("dozen schedule:add --time"), ["--timezone"]);
        assert!(offered("dozen ").contains(&"server".to_owned()));
        assert!(offered("dozen ledger:verify ").contains(&"--json".to_owned()));
    }

    #[test]
    fn every_shell_hears_of_every_command() {
        let (commands, _) = entries();
        assert!(commands.iter().any(|command| command.name == "create"), "other names of commands are there too");
        let [zsh, fish] = [Shell::Zsh, Shell::Fish].map(script);
        for command in &commands {
            let name = &command.name;
            assert!(zsh.contains(&format!("    '{}:", name.replace(':', "\\:"))), "{name}");
            assert!(fish.contains(&format!(" -a {name} -d ")), "{name}");
        }
    }

    #[test]
    fn shells_can_read_their_scripts() {
        for (program, shell) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
            let scratch = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(scratch.path(), script(shell)).expect("written");
            let read = Command::new(program).arg("-n").arg(scratch.path()).output().expect(program);
            assert!(read.status.success() && read.stderr.is_empty(), "{program}: {read:?}");
        }
    }

    #[test]
    fn fish_offers_what_bash_does() {
        let scratch = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(scratch.path(), script(Shell::Fish)).expect("written");
        let ask = format!("source {}; complete -C 'dozen ps:'", scratch.path().display());
        let home = tempfile::tempdir().expect("a directory");
        let said =
            Command::new("fish").args(["--no-config", "-c", &ask]).env("HOME", home.path()).output().expect("fish");
        let said = String::from_utf8(said.stdout).expect("text");
        let mut offered: Vec<&str> = said.lines().filter_map(|line| line.split('\t').next()).collect();
        offered.sort_unstable();
        assert_eq!(offered, ["ps:restart", "ps:scale", "ps:stop"]);
    }
}
