//! The line by which the official client learns a command's exit status: U+FFFF, a few words, the number.
//!
//! The client looks for it in each piece that it receives, so it must be a piece of its own, whole; everything else
//! goes through as it comes. What may be the beginning of the line is held back until the rest of it is there.

/// How the line begins; a number and a line end follow.
const BEGINNING: &[u8] = "\u{FFFF} heroku-command-exit-status: ".as_bytes();
/// Longer than the line can be.
const LONGEST: usize = 64;

/// Cuts output into pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    held: Vec<u8>,
    seen: bool,
}

/// The line, as a shell would have printed it.
pub(super) fn line(status: i32) -> String {
    format!("{}{status}\n", String::from_utf8_lossy(BEGINNING))
}

impl Pieces {
    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the line has gone by.
    pub(super) fn seen(&self) -> bool {
        self.seen
    }

    /// Takes output; gives the pieces that can be sent.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(at) = find(&self.held) {
            let rest = self.held.split_off(at);
            add(&mut pieces, std::mem::replace(&mut self.held, rest));
            let end = self.held.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            match end.or_else(|| (self.held.len() > LONGEST).then_some(LONGEST)) {
                Some(end) => {
                    self.seen = true;
                    let rest = self.held.split_off(end);
                    add(&mut pieces, std::mem::replace(&mut self.held, rest));
                }
                None => return pieces,
            }
        }
        add(&mut pieces, std::mem::take(&mut self.held));
        pieces
    }

    /// What is held back, for nothing more comes.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

fn add(pieces: &mut Vec<Vec<u8>>, piece: Vec<u8>) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

/// Where the line begins, or may begin at the very end.
fn find(bytes: &[u8]) -> Option<usize> {
    let may = |at: &usize| {
        let rest = &bytes[*at..];
        if rest.len() < BEGINNING.len() { BEGINNING.starts_with(rest) } else { rest.starts_with(BEGINNING) }
    };
    memchr::memchr_iter(BEGINNING[0], bytes).find(may)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "\u{FFFF} heroku-command-exit-status: 3\r\n";

    fn text(pieces: &[Vec<u8>]) -> Vec<String> {
        pieces.iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    #[test]
    fn the_line_is_a_piece_of_its_own_however_it_arrives() {
        let all = format!("much output{LINE}after");
        for cut in 0..=all.len() {
            let mut pieces = Pieces::default();
            let mut said = pieces.push(&all.as_bytes()[..cut]);
            said.extend(pieces.push(&all.as_bytes()[cut..]));
            assert!(text(&said).contains(&LINE.to_owned()), "{cut}: {:?}", text(&said));
            assert_eq!(said.concat(), all.as_bytes(), "{cut}");
        }
    }

    #[test]
    fn other_bytes_are_not_held_back() {
        let mut pieces = Pieces::default();
        let any: Vec<u8> = (0..=255).cycle().take(5000).collect();
        assert_eq!(pieces.push(&any).concat(), any);
        let near = "\u{FFFF} heroku-command-exit-statusquo\n";
        assert_eq!(text(&pieces.push(near.as_bytes())), [near]);
        assert!(!pieces.holds());
        assert!(pieces.push("x\u{FFFF}".as_bytes()).concat() == b"x" && pieces.holds());
        assert_eq!(pieces.rest(), "\u{FFFF}".as_bytes());
    }

    #[test]
    fn a_line_without_end_goes_all_the_same() {
        let mut pieces = Pieces::default();
        let long = format!("{}{}", String::from_utf8_lossy(BEGINNING), "9".repeat(100));
        assert_eq!(pieces.push(long.as_bytes()).concat(), long.as_bytes());
    }
}
