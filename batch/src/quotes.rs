//! Finds a text in a CSV file whose quotation mark is opened and never closed.
//!
//! Readers take all that follows for one text, up to the end of the file, and say nothing.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter};

/// A file that looks at what is read of it.
pub(crate) struct Quotes<R> {
    file: R,
    /// The byte before those that come next.
    before: u8,
    /// Line of those, from 1.
    line: u64,
    state: State,
}

/// Where the bytes that come next are. Lines are those in which the text begins.
#[derive(Debug, Clone, Copy)]
enum State {
    Outside,
    Within {
        line: u64,
    },
    /// After a quotation mark in a text: another one makes both a part of it.
    Ending {
        line: u64,
    },
}

impl<R: Read> Quotes<R> {
    pub(crate) fn new(file: R) -> Self {
        Self {
            file,
            before: b'\n',
            line: 1,
            state: State::Outside,
        }
    }

    /// Reads what is left; gives the line in which a text begins that does not end.
    pub(crate) fn unclosed(mut self) -> io::Result<Option<u64>> {
        let mut buffer = vec![0; 1 << 18];
        while self.read(&mut buffer)? > 0 {}
        match self.state {
            State::Within { line } => Ok(Some(line)),
            State::Outside | State::Ending { .. } => Ok(None),
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        let (mut next, mut counted) = (0, 0);
        while next < bytes.len() {
            self.state = match self.state {
                State::Ending { line } if bytes[next] == b'"' => {
                    next += 1;
                    State::Within { line }
                }
                State::Ending { .. } => State::Outside,
                State::Within { line } => {
                    let Some(found) = memchr(b'"', &bytes[next..]) else {
                        break;
                    };
                    next += found + 1;
                    State::Ending { line }
                }
                State::Outside => {
                    let Some(found) = memchr(b'"', &bytes[next..]) else {
                        break;
                    };
                    let at = next + found;
                    next = at + 1;
                    if self.begins_field(bytes, at) {
                        self.line += memchr_iter(b'\n', &bytes[counted..at]).count() as u64;
                        counted = at;
                        State::Within { line: self.line }
                    } else {
                        State::Outside
                    }
                }
            };
        }
        self.line += memchr_iter(b'\n', &bytes[counted..]).count() as u64;
        self.before = bytes.last().copied().unwrap_or(self.before);
    }

    /// A quotation mark elsewhere in a field is a character like others. The first field may come after a
    /// mark of the byte order.
    fn begins_field(&self, bytes: &[u8], at: usize) -> bool {
        let before = at
            .checked_sub(1)
            .map_or(self.before, |before| bytes[before]);
        let after_mark = self.line == 1 && bytes.get(..at) == Some(b"\xEF\xBB\xBF");
        matches!(before, b',' | b'\n' | b'\r') || after_mark
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(to)?;
        self.look(&to[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Slowly<'b>(&'b [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let next = self.0.len().min(1);
            self.0.read(&mut to[..next])
        }
    }

    #[test]
    fn a_text_that_does_not_end_is_found_where_it_begins() {
        for (file, line) in [
            ("a,b\n1,\"x\"\n", None),
            ("a,b\n1,\"x\n2,y\n", Some(2)),
            ("a,b\n\"1\n2\",\"x \"\"y\"\" z\"\n\"", Some(4)),
            ("a,b\n1,5\" wide\n2,y\n", None),
            ("a,b\n1,\"x\"", None),
            ("a,b\n1,\"x\"\"", Some(2)),
            ("a,b\r\n1,\"\"\r\n\"\",\"\"\"\"\r\n", None),
            ("\u{feff}\"a\",b\n", None),
            ("\u{feff}\"a,b\n", Some(1)),
            ("", None),
        ] {
            let whole = Quotes::new(file.as_bytes()).unclosed().unwrap();
            assert_eq!(whole, line, "{file:?}");
            let slowly = Quotes::new(Slowly(file.as_bytes())).unclosed().unwrap();
            if !file.starts_with('\u{feff}') {
                assert_eq!(slowly, line, "{file:?}, byte by byte");
            }
        }
    }
}
