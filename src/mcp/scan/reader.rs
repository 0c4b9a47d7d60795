//! A pull reader over JSON text: validates what it passes, hands out tokens, builds nothing.
//!
//! Callers walk objects and arrays with closures that must consume exactly one value per call. Recursion is bounded by
//! [`MAX_DEPTH`], faults are eight bytes so that results stay in registers.

use std::borrow::Cow;
use std::cell::Cell;

use super::keys::Keys;
use super::message::{JsonStr, Raw};
use super::string::{escape, plain_run, unescape};
use super::{MAX_BODY, MAX_DEPTH, ScanError, Shape};

/// Which objects are checked for duplicate keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mcp) enum Checks {
    /// All of them.
    AllKeys,
    /// Those that the caller walks itself; skipped values are not checked.
    WalkedKeys,
}

/// A reason to stop, with the byte offset it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mcp) struct Fault {
    pub(super) at: u32,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    Ambiguous,
    Duplicate,
    Json,
    Shape(Shape),
    TooDeep,
}

impl Fault {
    #[cold]
    pub(in crate::mcp) fn shape(at: usize, shape: Shape) -> Self {
        Self { at: at as u32, kind: FaultKind::Shape(shape) }
    }

    #[cold]
    fn json(at: usize) -> Self {
        Self { at: at as u32, kind: FaultKind::Json }
    }
}

/// A string literal: where its content lies between the quotes. Escapes in it have been validated.
#[derive(Clone, Copy, Debug)]
pub(in crate::mcp) struct Token {
    pub(super) start: u32,
    end: u32,
    pub(super) escaped: bool,
}

impl Token {
    /// The content as written.
    #[inline]
    pub(super) fn bytes(self, text: &str) -> &[u8] {
        &text.as_bytes()[self.start as usize..self.end as usize]
    }

    /// The content with escapes resolved.
    #[inline]
    pub(super) fn decode(self, text: &str) -> Cow<'_, str> {
        let content = &text[self.start as usize..self.end as usize];
        if self.escaped { unescape(content) } else { Cow::Borrowed(content) }
    }

    /// The fault of a key.
    #[cold]
    pub(super) fn ambiguous(self) -> Fault {
        Fault { at: self.start, kind: FaultKind::Ambiguous }
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Keys>>> = const { Cell::new(None) };
}

/// Runs `walk` over a whole text: surrounding white space is allowed, anything else after the value is not. What
/// `walk` finds it puts where the caller wants it, which spares copies of large results.
pub(in crate::mcp) fn read<'a>(
    bytes: &'a [u8],
    checks: Checks,
    walk: impl FnOnce(&mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), ScanError> {
    if bytes.len() > MAX_BODY {
        return Err(ScanError::TooLong { length: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| ScanError::NotUtf8 { at: error.valid_up_to() })?;
    // Taken rather than borrowed: `walk` may run code that scans another text.
    let keys = SCRATCH.take().unwrap_or_default();
    let mut reader = Reader { text, at: 0, depth: 0, checks, keys };
    reader.space();
    let mut outcome = walk(&mut reader);
    reader.space();
    if outcome.is_ok() && reader.at != text.len() {
        outcome = Err(Fault::json(reader.at));
    }
    reader.keys.reset();
    SCRATCH.set(Some(reader.keys));
    outcome.map_err(|fault| ScanError::from_fault(fault, text))
}

/// What [`Keys::work`] has counted since the last call.
#[cfg(test)]
pub(super) fn take_work() -> usize {
    SCRATCH.take().unwrap_or_default().work
}

/// Entries that the scratch of this thread holds memory for.
#[cfg(test)]
pub(super) fn scratch_capacity() -> usize {
    SCRATCH.take().unwrap_or_default().capacity()
}

pub(in crate::mcp) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    checks: Checks,
    keys: Box<Keys>,
}

impl<'a> Reader<'a> {
    /// Offset of the next byte.
    #[inline]
    pub(in crate::mcp) fn position(&self) -> usize {
        self.at
    }

    /// The next byte; 0, which begins no JSON value, at the end.
    #[inline]
    pub(in crate::mcp) fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// The fault of the value that comes next.
    #[cold]
    pub(in crate::mcp) fn shape(&self, shape: Shape) -> Fault {
        Fault::shape(self.at, shape)
    }

    /// The content of a string with escapes resolved.
    #[inline]
    pub(in crate::mcp) fn decode(&self, token: Token) -> Cow<'a, str> {
        token.decode(self.text)
    }

    /// The text from `start` to here.
    #[inline]
    pub(in crate::mcp) fn since(&self, start: usize) -> Raw<'a> {
        Raw::new(&self.text[start..self.at], start)
    }

    /// Skips one value and returns its text.
    #[inline]
    pub(in crate::mcp) fn raw(&mut self) -> Result<Raw<'a>, Fault> {
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    /// Reads one value, and returns it if it is a string.
    #[inline]
    pub(in crate::mcp) fn string_value(&mut self) -> Result<Option<JsonStr<'a>>, Fault> {
        if self.peek() != b'"' {
            self.skip()?;
            return Ok(None);
        }
        let token = self.string()?;
        Ok(Some(JsonStr::new(token.decode(self.text), token.start as usize - 1, token.end as usize + 1)))
    }

    /// Validates and passes one value.
    #[inline]
    pub(in crate::mcp) fn skip(&mut self) -> Result<(), Fault> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => self.skip_other(),
        }
    }

    /// Apart from [`skip`](Self::skip) so that strings and numbers, which are most values, need no large stack frame.
    fn skip_other(&mut self) -> Result<(), Fault> {
        match self.peek() {
            b'{' if self.checks == Checks::AllKeys => self.members::<true>(|reader, _| reader.skip()),
            b'{' => self.members::<false>(|reader, _| reader.skip()),
            b'[' => self.array(Self::skip),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(Fault::json(self.at)),
        }
    }

    /// Walks an object; the next byte must be its `{`. `member` consumes the value of each key. Duplicate keys are
    /// reported at the closing brace.
    #[inline]
    pub(in crate::mcp) fn object(
        &mut self,
        member: impl FnMut(&mut Self, Token) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.members::<true>(member)
    }

    /// Walks an array; the next byte must be its `[`. `element` consumes each value.
    #[inline]
    pub(in crate::mcp) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.open(b'[')?;
        if self.peek() == b']' {
            self.close();
            return Ok(());
        }
        loop {
            element(self)?;
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(Fault::json(self.at)),
            }
            self.space();
        }
        self.close();
        Ok(())
    }

    #[inline]
    fn members<const CHECKED: bool>(
        &mut self,
        mut member: impl FnMut(&mut Self, Token) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.open(b'{')?;
        if self.peek() == b'}' {
            self.close();
            return Ok(());
        }
        let base = self.keys.len();
        loop {
            let key = self.string()?;
            if CHECKED {
                self.keys.push(key, self.text);
            }
            self.space();
            self.expect(b':')?;
            self.space();
            member(self, key)?;
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(Fault::json(self.at)),
            }
            self.space();
        }
        if CHECKED {
            self.keys.close(base, self.text).map_err(|at| Fault { at, kind: FaultKind::Duplicate })?;
        }
        self.close();
        Ok(())
    }

    #[inline]
    fn open(&mut self, bracket: u8) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault { at: self.at as u32, kind: FaultKind::TooDeep });
        }
        self.expect(bracket)?;
        self.depth += 1;
        self.space();
        Ok(())
    }

    #[inline]
    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != byte {
            return Err(Fault::json(self.at));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        let end = self.at + word.len();
        if self.text.as_bytes().get(self.at..end) != Some(word) {
            return Err(Fault::json(self.at));
        }
        self.at = end;
        Ok(())
    }

    /// Reads a string literal; the next byte must be its opening quote.
    #[inline]
    pub(in crate::mcp) fn string(&mut self) -> Result<Token, Fault> {
        self.expect(b'"')?;
        let start = self.at;
        self.at = plain_run(self.text.as_bytes(), start);
        let escaped = self.peek() == b'\\';
        if escaped {
            self.escapes()?;
        }
        let end = self.at;
        self.expect(b'"')?;
        Ok(Token { start: start as u32, end: end as u32, escaped })
    }

    /// Passes escapes and what is between them, up to the first byte that belongs to neither.
    fn escapes(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while bytes.get(at) == Some(&b'\\') {
            let (_, after) = escape(bytes, at).ok_or_else(|| Fault::json(at))?;
            at = plain_run(bytes, after);
        }
        self.at = at;
        Ok(())
    }

    /// Reads a number and says whether it is written as an integer.
    pub(in crate::mcp) fn number(&mut self) -> Result<bool, Fault> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.peek() == b'.' {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(integer)
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(Fault::json(start)) } else { Ok(()) }
    }
}
