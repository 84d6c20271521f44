//! The `Procfile`: which process types an app has and the command of each.
//!
//! One type a line, `<type>: <command>`, in the root of the source (Dev Center: procfile). Every mistake is reported with its
//! line number, all of them at once. What a command does is the shell's affair and is not looked at here.

use std::fmt;

use crate::{image::ProcessTypes, name::ProcessType};

/// Where a `Procfile` is wrong and why. The texts tell the app's owner what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Mistake {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// Kinds of mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no `:`.
    NoColon(String),
    /// What stands before the `:` is no process type.
    BadType(String),
    /// Nothing stands after the `:`.
    NoCommand(ProcessType),
    /// The type was declared before.
    Duplicate {
        /// The type.
        process_type: ProcessType,
        /// Line of the first declaration.
        first: usize,
    },
    /// The line has a NUL, which no command can hold.
    Nul,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColon(text) => {
                write!(f, "\"{text}\" is no process type and command; write it as \"<type>: <command>\"")
            }
            Self::BadType(text) => write!(
                f,
                "\"{text}\" is no name for a process type; use 1 to 63 letters, digits, dashes or underscores"
            ),
            Self::NoCommand(process_type) => {
                write!(
                    f,
                    "process type \"{process_type}\" has no command; write one after the colon or remove the line"
                )
            }
            Self::Duplicate { process_type, first } => {
                write!(f, "process type \"{process_type}\" was already declared on line {first}; keep one of the two")
            }
            Self::Nul => f.write_str("the line holds a NUL character; save the file as plain UTF-8 text"),
        }
    }
}

/// All that is wrong with a `Procfile`, in order of lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Procfile is not valid")]
pub struct Invalid(pub Vec<Mistake>);

/// Reads a `Procfile`. Empty lines and lines that start with `#` are passed over; a byte order mark and CRLF are
/// accepted, because editors write them.
///
/// # Errors
/// When any line is wrong; all mistakes are listed.
pub fn parse(text: &str) -> Result<ProcessTypes, Invalid> {
    let mut declared: Vec<(ProcessType, String, usize)> = Vec::new();
    let mut mistakes = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match declaration(line, &declared) {
            Ok((process_type, command)) => declared.push((process_type, command, number)),
            Err(problem) => mistakes.push(Mistake { line: number, problem }),
        }
    }
    if mistakes.is_empty() {
        Ok(declared.into_iter().map(|(process_type, command, _)| (process_type, command)).collect())
    } else {
        Err(Invalid(mistakes))
    }
}

fn declaration(line: &str, declared: &[(ProcessType, String, usize)]) -> Result<(ProcessType, String), Problem> {
    if line.contains('\0') {
        return Err(Problem::Nul);
    }
    let Some((name, command)) = line.split_once(':') else {
        return Err(Problem::NoColon(shown(line)));
    };
    let process_type: ProcessType = name.trim_end().parse().map_err(|_| Problem::BadType(shown(name)))?;
    let command = command.trim();
    if command.is_empty() {
        return Err(Problem::NoCommand(process_type));
    }
    if let Some((_, _, first)) = declared.iter().find(|(known, _, _)| *known == process_type) {
        return Err(Problem::Duplicate { process_type, first: *first });
    }
    Ok((process_type, command.to_owned()))
}

/// As much of a wrong line as helps to find it: a line may hold a secret or be a binary file.
fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > LONGEST {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let types = parse(text).expect("a valid Procfile");
        let types: Vec<_> = types.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
        assert_eq!(types, expected);
    }

    fn check_mistakes(text: &str, expected: &[&str]) {
        let Invalid(mistakes) = parse(text).expect_err("an invalid Procfile");
        assert_eq!(mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn types_keep_the_order_of_the_file() {
        check(
            "worker: python worker.py\nweb: gunicorn app:app --bind [::]:$PORT\n",
            &[("worker", "python worker.py"), ("web", "gunicorn app:app --bind [::]:$PORT")],
        );
    }

    #[test]
    fn comments_blank_lines_and_foreign_line_ends_are_accepted() {
        check(
            "\u{feff}# types\r\n\r\nweb:node index.js\r\n  release : ./migrate \r\n",
            &[("web", "node index.js"), ("release", "./migrate")],
        );
        check("", &[]);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        check_mistakes(
            "web: a\nno command here\n\nw b: x\nworker:\nweb: b\n",
            &[
                "line 2: \"no command here\" is no process type and command; write it as \"<type>: <command>\"",
                "line 4: \"w b\" is no name for a process type; use 1 to 63 letters, digits, dashes or underscores",
                "line 5: process type \"worker\" has no command; write one after the colon or remove the line",
                "line 6: process type \"web\" was already declared on line 1; keep one of the two",
            ],
        );
    }

    #[test]
    fn a_long_or_binary_line_is_shown_in_part() {
        check_mistakes("web: a\0b", &["line 1: the line holds a NUL character; save the file as plain UTF-8 text"]);
        let Invalid(mistakes) = parse(&"x".repeat(500)).expect_err("no colon");
        assert!(mistakes[0].to_string().len() < 150);
    }
}
