//! What the pusher reads: `-----> ` headings, lines indented by seven spaces, ` !     ` before errors and warnings
//! (Dev Center: buildpack-api, "Style").
//!
//! The only place that writes to standard output, and the keeper of the build's log limit. It knows nothing of colours
//! or terminals: Git and the Platform API pass the bytes on as they are.

use std::io::Write;

use crate::error::{Error, Explanation, Result};

/// The longest line passed on in one piece; a foreign program may print megabytes without a line end.
const LONGEST_LINE: usize = 64 * 1024;

/// The build's output.
pub(crate) struct Output {
    sink: Box<dyn Write + Send>,
    written: u64,
    limit: u64,
    partial: Vec<u8>,
}

impl Output {
    /// Output into `sink`, at most `limit` bytes of it from foreign programs.
    pub(crate) fn new(sink: Box<dyn Write + Send>, limit: u64) -> Self {
        Self { sink, written: 0, limit, partial: Vec::new() }
    }

    /// Sets the limit once the request has been read.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// A step begins.
    pub(crate) fn heading(&mut self, text: &str) {
        self.write(format!("-----> {text}\n").as_bytes());
    }

    /// More about the current step.
    pub(crate) fn line(&mut self, text: &str) {
        if text.is_empty() { self.write(b"\n") } else { self.write(format!("       {text}\n").as_bytes()) }
    }

    /// Something to look at that does not stop the build.
    pub(crate) fn warning(&mut self, headline: &str, details: &[&str]) {
        self.write(format!(" !     {headline}").trim_end().as_bytes());
        self.write(b"\n");
        for line in details {
            self.write(format!(" !     {line}").trim_end().as_bytes());
            self.write(b"\n");
        }
    }

    /// Why the build ends.
    pub(crate) fn error(&mut self, explanation: &Explanation) {
        let details: Vec<&str> = explanation.details.iter().map(String::as_str).collect();
        self.warning(&explanation.headline, &details);
    }

    /// Bytes of a foreign program, indented line by line; a line appears when it is complete.
    ///
    /// # Errors
    /// When the log limit is reached.
    pub(crate) fn foreign(&mut self, bytes: &[u8], indent: bool) -> Result<()> {
        self.partial.extend_from_slice(bytes);
        let complete = match memchr::memrchr(b'\n', &self.partial) {
            Some(at) => at + 1,
            None if self.partial.len() > LONGEST_LINE => self.partial.len(),
            None => return Ok(()),
        };
        let mut block = Vec::with_capacity(complete + 1024);
        for line in self.partial[..complete].split_inclusive(|byte| *byte == b'\n') {
            if indent && line != b"\n" {
                block.extend_from_slice(b"       ");
            }
            block.extend_from_slice(line);
        }
        self.partial.drain(..complete);
        self.bounded(&block)
    }

    /// A foreign program has ended: its last line may lack its end.
    ///
    /// # Errors
    /// When the log limit is reached.
    pub(crate) fn foreign_end(&mut self, indent: bool) -> Result<()> {
        if self.partial.is_empty() { Ok(()) } else { self.foreign(b"\n", indent) }
    }

    fn bounded(&mut self, block: &[u8]) -> Result<()> {
        if self.written + block.len() as u64 > self.limit {
            return Err(Error::rejected(
                format!("The build printed more than {} bytes (DOZEN_LIMIT_BUILD_LOG_BYTES).", self.limit),
                ["", "Make the programs that the build runs print less, for example with --quiet."],
            ));
        }
        self.write(block);
        Ok(())
    }

    /// A reader that went away is no reason to fail: the runtime ends the build if it wants to.
    fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        let _ = self.sink.write_all(bytes).and_then(|()| self.sink.flush());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A sink that can be read afterwards.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().expect("no panic while held")).into_owned()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic while held").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_foreign_programs_are_indented_when_they_are_complete() {
        let captured = Captured::default();
        let mut output = Output::new(Box::new(captured.clone()), 1_000);
        output.heading("Installing");
        output.foreign(b"one\n\ntw", true).expect("within the limit");
        assert_eq!(captured.text(), "-----> Installing\n       one\n\n");
        output.foreign(b"o", true).expect("within the limit");
        output.foreign_end(true).expect("within the limit");
        assert_eq!(captured.text(), "-----> Installing\n       one\n\n       two\n");
    }

    #[test]
    fn a_flood_ends_the_build_with_an_explanation() {
        let mut output = Output::new(Box::new(Captured::default()), 100);
        let error = output.foreign(&b"0123456789\n".repeat(20), true).expect_err("too much");
        assert_eq!(error.exit_code(), 1);
    }
}
