//! The only place that writes to the terminal: data to standard output, everything else to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::Error;

/// Where a command's answer goes.
pub struct Printer<'a> {
    data: &'a mut dyn Write,
    notes: &'a mut dyn Write,
    json: bool,
    unfinished: bool,
}

impl<'a> Printer<'a> {
    /// Data to the first, notes to the second.
    pub fn new(data: &'a mut dyn Write, notes: &'a mut dyn Write) -> Self {
        Self { data, notes, json: false, unfinished: false }
    }

    /// Data as JSON in place of tables and lines.
    #[must_use]
    pub fn as_json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// Whether data is to be JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A value as JSON, over several lines.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        // What is printed came as JSON or is made of plain structs.
        self.line(&serde_json::to_string_pretty(value).unwrap_or_default())
    }

    /// Says what is begun, before it is done: [`Printer::done`] ends the line.
    pub fn begin(&mut self, text: &str) {
        self.finish();
        _ = write!(self.notes, "{text}... ").and_then(|()| self.notes.flush());
        self.unfinished = true;
    }

    /// Asks for something that is typed on the same line.
    pub fn ask(&mut self, question: &str) {
        self.finish();
        _ = write!(self.notes, "{question} ").and_then(|()| self.notes.flush());
    }

    /// Says how it ended.
    pub fn done(&mut self, text: &str) {
        self.unfinished = false;
        self.note(text);
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            _ = writeln!(self.notes);
        }
    }

    /// One line of data.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone away (`| head`) is such a case.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.finish();
        writeln!(self.data, "{text}").and_then(|()| self.data.flush()).map_err(unwritten)
    }

    /// Lines of data in columns of equal width.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn table(&mut self, rows: &[Vec<String>]) -> Result<(), Error> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// One line for the person, not for a program.
    pub fn note(&mut self, text: &str) {
        self.finish();
        // Who does not read notes does not miss them.
        _ = writeln!(self.notes, "{text}");
    }
}

impl Drop for Printer<'_> {
    fn drop(&mut self) {
        // What went wrong is told on a line of its own.
        self.finish();
    }
}

fn unwritten(source: io::Error) -> Error {
    Error::Io { operation: "write to standard output".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let rows = [vec!["web".to_owned(), "up".to_owned()], vec!["worker".to_owned(), "crashed".to_owned()]];
        Printer::new(&mut data, &mut notes).table(&rows).expect("written");
        assert_eq!(String::from_utf8(data).expect("text"), "web     up\nworker  crashed\n");
    }

    #[test]
    fn what_is_begun_and_not_done_ends_its_line() {
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut data, &mut notes);
        printer.begin("Scaling dynos");
        printer.done("done");
        printer.begin("Restarting dynos");
        drop(printer);
        assert_eq!(String::from_utf8(notes).expect("text"), "Scaling dynos... done\nRestarting dynos... \n");
    }
}
