//! Cuts bytes into lines: at LF or CRLF, and inside lines that are longer than the limit.
//!
//! A line without its end waits, so that its producer can be asked for it again; how many bytes wait is known.

use dozen_api::clock::Micros;

/// Cuts one producer's bytes.
#[derive(Debug)]
pub(crate) struct Splitter {
    limit: usize,
    partial: Vec<u8>,
    at: Micros,
}

impl Splitter {
    /// Lines of `limit` bytes at most.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX).max(4), partial: Vec::new(), at: 0 }
    }

    /// Bytes of the line whose end has not come.
    pub(crate) fn pending(&self) -> u64 {
        self.partial.len() as u64
    }

    /// Takes bytes that were read at `at`; gives each line with the time of its first byte.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], at: Micros, mut line: impl FnMut(Micros, &[u8])) {
        if !self.partial.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            self.partial.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return self.cut(line) };
            whole(&self.partial, self.limit, |text| line(self.at, text));
            self.partial = Vec::new();
            bytes = &bytes[end + 1..];
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            whole(&bytes[start..end], self.limit, |text| line(at, text));
            start = end + 1;
        }
        self.partial.extend_from_slice(&bytes[start..]);
        self.at = at;
        self.cut(line);
    }

    /// Gives the waiting line as it is: nothing more of it will come.
    pub(crate) fn flush(&mut self, mut line: impl FnMut(Micros, &[u8])) {
        if !self.partial.is_empty() {
            whole(&self.partial, self.limit, |text| line(self.at, text));
            self.partial = Vec::new();
        }
    }

    /// Forgets the waiting line: it will be delivered again.
    pub(crate) fn reset(&mut self) {
        self.partial = Vec::new();
    }

    /// Gives what is longer than a line can be, even if its end were CRLF.
    fn cut(&mut self, mut line: impl FnMut(Micros, &[u8])) {
        let mut start = 0;
        while self.partial.len() - start > self.limit + 1 {
            let end = start + boundary(&self.partial[start..], self.limit);
            line(self.at, &self.partial[start..end]);
            start = end;
        }
        self.partial.drain(..start);
    }
}

/// Gives a whole line, without its CR, in pieces of at most `limit` bytes.
pub(crate) fn whole(line: &[u8], limit: usize, mut piece: impl FnMut(&[u8])) {
    let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
    while rest.len() > limit {
        let (head, tail) = rest.split_at(boundary(rest, limit));
        piece(head);
        rest = tail;
    }
    piece(rest);
}

/// Where to cut so that at most `limit` bytes come before and no UTF-8 character is cut.
fn boundary(bytes: &[u8], limit: usize) -> usize {
    let continues = |at: &usize| bytes[*at] & 0xc0 == 0x80;
    (limit - 3..=limit).rev().find(|at| !continues(at)).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: u64, pieces: &[&str], lines: &[&str], pending: u64) {
        let mut splitter = Splitter::new(limit);
        let mut got = Vec::new();
        for piece in pieces {
            splitter.feed(piece.as_bytes(), 0, |_, text| got.push(String::from_utf8_lossy(text).into_owned()));
        }
        assert_eq!(got, lines, "{pieces:?}");
        assert_eq!(splitter.pending(), pending, "{pieces:?}");
    }

    #[test]
    fn lines_end_at_lf_or_crlf_wherever_pieces_end() {
        check(100, &["a\nb\r\n\nc"], &["a", "b", ""], 1);
        check(100, &["a", "b\r", "\nc\n", "", "d"], &["ab", "c"], 1);
        check(100, &["a\rb\n"], &["a\rb"], 0);
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_over_it_is_split() {
        check(4, &["abcd\n", "abcd\r\n", "abcde\n", "abcdefgh\n"], &["abcd", "abcd", "abcd", "e", "abcd", "efgh"], 0);
        check(4, &["abc", "d\r", "\n"], &["abcd"], 0);
        check(4, &["abcd", "ef", "\n"], &["abcd", "ef"], 0);
        check(4, &["abcdefghijkl"], &["abcd", "efgh"], 4);
    }

    #[test]
    fn a_character_is_not_cut() {
        check(5, &["abcdéf\n"], &["abcd", "éf"], 0);
    }

    #[test]
    fn a_flush_gives_the_line_without_end() {
        let mut splitter = Splitter::new(100);
        let mut got = Vec::new();
        splitter.feed(b"a\nrest", 7, |at, text| got.push((at, text.to_vec())));
        splitter.flush(|at, text| got.push((at, text.to_vec())));
        assert_eq!(got, [(7, b"a".to_vec()), (7, b"rest".to_vec())]);
        assert_eq!(splitter.pending(), 0);
    }
}
