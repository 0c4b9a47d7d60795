//! The plain bytes inside sealed ids: fixed-size numbers and length-prefixed strings, little endian.

/// The plaintext is not what this version writes. It was authentic, so another version wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLayout;

/// Reads a plaintext from front to back.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadLayout> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadLayout)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, BadLayout> {
        self.array::<1>().map(|[b]| b)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadLayout> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, BadLayout> {
        self.array().map(u128::from_le_bytes)
    }

    /// A string with its length in 32 bits.
    pub(super) fn text(&mut self) -> Result<&'a str, BadLayout> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadLayout)?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| BadLayout)
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<&'a str>, BadLayout> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(BadLayout),
        }
    }

    pub(super) fn end(self) -> Result<(), BadLayout> {
        if self.0.is_empty() { Ok(()) } else { Err(BadLayout) }
    }
}

/// Writes what [`Reader`] reads. The caller has bounded the lengths.
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u128(self, value: u128) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(&(text.len() as u32).to_le_bytes()).bytes(text.as_bytes())
    }

    pub(super) fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.u8(0),
            Some(text) => self.u8(1).text(text),
        }
    }
}
