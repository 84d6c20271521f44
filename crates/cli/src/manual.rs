//! The manual page, made from the definition of the command line, so that neither can be without the other.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use crate::{EXIT_CODES, arguments::Arguments};

/// The page, for `man`: macros of man(7).
pub fn page() -> String {
    let dozen = Arguments::command();
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = writeln!(page, ".TH DOZEN 1 \"\" \"dozen {}\" \"User commands\"", env!("CARGO_PKG_VERSION"));
    page.push_str(".SH NAME\ndozen \\- a twelve\\-factor application platform in one executable\n");
    page.push_str(".SH SYNOPSIS\n.B dozen\n.I command\n.RI [ options ]\n.SH COMMANDS\n");
    for command in dozen.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut page, command);
    }
    page.push_str(".SH OPTIONS OF ALL COMMANDS\n");
    for option in dozen.get_arguments() {
        entry(&mut page, option);
    }
    page.push_str(".SH ENVIRONMENT\nEvery variable is listed in docs/configuration.md.\n");
    for (name, text) in ENVIRONMENT {
        _ = writeln!(page, ".TP\n.B {name}\n{}", plain(text));
    }
    page.push_str(".SH EXIT STATUS\n");
    for (status, text) in EXIT_CODES {
        _ = writeln!(page, ".TP\n.B {status}\n{}", plain(text));
    }
    page.push_str(
        ".SH FILES\n.TP\n.I ~/.config/dozen\nThe login to a platform elsewhere, with its pinned certificate.\n",
    );
    page
}

/// The exit statuses, for the end of the help.
pub fn exit_codes() -> String {
    let lines = EXIT_CODES.iter().map(|(status, text)| format!("  {status:<4} {text}"));
    format!("Exit status:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "DOZEN_DATA_DIR",
        "The platform of this machine that commands are for. When it is not set and there is a login, they are for the platform that was logged in to.",
    ),
    ("DOZEN_API_KEY", "A token to use in place of the first account's or the login's."),
    ("DOZEN_HEROKU_CLI", "The official CLI's executable, for dozen heroku."),
];

fn section(page: &mut String, command: &Command) {
    _ = writeln!(page, ".SS dozen {}{}", plain(command.get_name()), plain(&usage(command)));
    let text = command.get_about().map(ToString::to_string).unwrap_or_default();
    _ = writeln!(page, "{}.", plain(&text));
    for name in command.get_visible_aliases() {
        _ = writeln!(page, "Also: dozen {}.", plain(name));
    }
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        entry(page, argument);
    }
}

fn usage(command: &Command) -> String {
    let positional = command.get_positionals().map(|argument| {
        let name = word(argument);
        let many = if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { " ..." } else { "" };
        if argument.is_required_set() { format!(" {name}{many}") } else { format!(" [{name}{many}]") }
    });
    positional.collect()
}

/// What stands for an argument's value.
fn word(argument: &Arg) -> String {
    let names = argument.get_value_names().map(|names| names.join(" "));
    names.unwrap_or_else(|| argument.get_id().as_str().to_ascii_uppercase())
}

fn entry(page: &mut String, argument: &Arg) {
    let mut heads = Vec::new();
    let value = if argument.get_action().takes_values() { format!(" {}", word(argument)) } else { String::new() };
    if let Some(short) = argument.get_short() {
        heads.push(format!("-{short}{value}"));
    }
    if let Some(long) = argument.get_long() {
        heads.push(format!("--{long}{value}"));
    }
    if heads.is_empty() {
        heads.push(word(argument));
    }
    let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match default.join(" ") {
        default if default.is_empty() || !argument.get_action().takes_values() => String::new(),
        default => format!(" ({default} unless given)"),
    };
    _ = writeln!(page, ".TP\n.B {}\n{}{}", plain(&heads.join(", ")), plain(&text), plain(&default));
}

/// Text that holds nothing of man(7): no escape, and no line that is a request.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\n', " ");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_has_its_place() {
        let page = page();
        for command in Arguments::command().get_subcommands() {
            let head = format!(".SS dozen {}", plain(command.get_name()));
            let shown = page.lines().any(|line| line == head || line.starts_with(&format!("{head} ")));
            assert_eq!(shown, !command.is_hide_set(), "{head}");
        }
        assert!(page.contains(".B \\-\\-json\n") && page.contains(".B \\-d DYNO, \\-\\-dyno DYNO\n"));
        assert!(page.contains("(web.1 unless given)"));
    }

    #[test]
    fn text_is_no_request() {
        assert_eq!(plain(".profile is\nread"), "\\&.profile is read");
        assert_eq!(plain("a\\b -x"), "a\\eb \\-x");
    }
}
