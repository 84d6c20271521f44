//! Rules that no compiler knows: length of files, a text at the head of each module, pages for codes, words to avoid.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use dozen_domain::codes::Code;

/// Longest source file in lines.
const LONGEST: usize = 800;

/// Files that may be longer, each with its reason.
const LONG_WITH_REASON: &[(&str, &str)] = &[];

/// Words that say nothing, and what must not stand in a finished file.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!(", "unfinished"),
    ("unimplemented!(", "unfinished"),
    ("FIXME", "unfinished"),
    ("#[ignore", "a test that does not run proves nothing"),
];

/// The one reason for which a test may be left out of a run: it proves nothing, it prints figures.
const MEASUREMENT: &str = "#[ignore = \"a measurement\"]";

/// Module names that say nothing about what they know.
const DRAWERS: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

pub(crate) fn run(root: &Path) -> ExitCode {
    let mut faults = Vec::new();
    let files = tracked(root);
    if files.is_empty() {
        faults.push("git ls-files lists nothing: run this inside the repository".to_owned());
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        check_source(root, file, &mut faults);
    }
    check_codes(root, &files, &mut faults);
    for fault in &faults {
        crate::report(fault);
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tracked(root: &Path) -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let Ok(listed) = listed else { return Vec::new() };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

fn check_source(root: &Path, file: &Path, faults: &mut Vec<String>) {
    let name = file.display();
    let Ok(text) = fs::read_to_string(root.join(file)) else { return };
    let lines = text.lines().count();
    let excused = LONG_WITH_REASON.iter().any(|(path, _)| Path::new(path) == file);
    if lines > LONGEST && !excused {
        faults.push(format!(
            "{name}: {lines} lines, over {LONGEST}: split it, or list it in xtask/src/tidy.rs with a reason"
        ));
    }
    let example = file.starts_with("examples");
    if !example && !text.starts_with("//!") && !text.starts_with("#!") {
        faults.push(format!("{name}: no module text; say what it is for, how it fits, what it does not do"));
    }
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if DRAWERS.contains(&stem) {
        faults.push(format!("{name}: name the module after what it knows"));
    }
    if file.ends_with("xtask/src/tidy.rs") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for (word, why) in FORBIDDEN {
            if line.contains(word) && !line.contains(MEASUREMENT) {
                faults.push(format!("{name}:{}: `{word}` ({why})", number + 1));
            }
        }
    }
}

/// A code that the sources use has a page, and a page has a code.
fn check_codes(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) {
    let sources: String = files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .filter(|file| !file.ends_with("crates/domain/src/codes.rs"))
        .filter_map(|file| fs::read_to_string(root.join(file)).ok())
        .collect();
    for code in Code::ALL {
        let page = format!("docs/errors/{code}.md");
        let used = sources.contains(&format!("Code::{code}"));
        let exists = root.join(&page).exists();
        if used && !exists {
            faults.push(format!("{page}: missing, though the sources use Code::{code}"));
        }
    }
}
