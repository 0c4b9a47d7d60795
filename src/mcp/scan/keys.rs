//! Refuses duplicate keys in time linear in the text.
//!
//! The keys of all open objects lie on one stack; closing an object checks those above its base and pops them. Few
//! plain keys are compared pair by pair, which costs no hashing; many keys, or keys with escapes, go through a hash
//! table. Its hash is keyed at random per thread because the client chooses the keys.

use std::hash::{BuildHasher, RandomState};

use super::reader::Token;

/// Up to so many keys are compared pair by pair.
const LINEAR: usize = 32;
/// Scratch with a larger capacity than this is given back after use.
const RETAINED: usize = 4096;

#[derive(Default)]
pub(super) struct Keys {
    open: Vec<Key>,
    table: Vec<Slot>,
    hasher: RandomState,
    /// Comparisons, probes and table resets so far: what the tests hold to be linear.
    #[cfg(test)]
    pub(super) work: usize,
}

#[derive(Clone, Copy)]
struct Key {
    token: Token,
    /// Length, first and last byte: two keys with different tags differ.
    tag: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    /// Offset from the object's base plus one; 0 is a free slot.
    key: u32,
}

impl Keys {
    /// The base for a new object.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    #[inline]
    pub(super) fn push(&mut self, token: Token, text: &str) {
        let bytes = token.bytes(text);
        let edge = |byte: Option<&u8>| u32::from(byte.copied().unwrap_or_default());
        let tag = (bytes.len() as u32) << 16 | edge(bytes.first()) << 8 | edge(bytes.last());
        self.open.push(Key { token, tag });
    }

    /// Closes the object whose keys start at `base`; the error is where a key that occurs twice starts. An offset
    /// instead of the key keeps the result in registers.
    #[inline]
    pub(super) fn close(&mut self, base: usize, text: &str) -> Result<(), u32> {
        let keys = &self.open[base..];
        let duplicate = match keys.len() {
            0 | 1 => None,
            2..=LINEAR => {
                #[cfg(test)]
                {
                    self.work += keys.len() * (keys.len() - 1) / 2;
                }
                match pairwise(keys, text) {
                    Pairwise::Distinct => None,
                    Pairwise::Duplicate(at) => Some(at),
                    Pairwise::Escaped => self.hashed(base, text),
                }
            }
            _ => self.hashed(base, text),
        };
        self.open.truncate(base);
        duplicate.map_or(Ok(()), Err)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.open.capacity() + self.table.capacity()
    }

    /// Out of line: its variables would cost every small object stack space.
    #[inline(never)]
    fn hashed(&mut self, base: usize, text: &str) -> Option<u32> {
        let keys = &self.open[base..];
        let size = (keys.len() * 2).next_power_of_two();
        self.table.clear();
        self.table.resize(size, Slot { hash: 0, key: 0 });
        #[cfg(test)]
        {
            self.work += size;
        }
        for (index, key) in keys.iter().enumerate() {
            let content = key.token.decode(text);
            let hash = self.hasher.hash_one(content.as_bytes());
            let tag = (hash >> 32) as u32;
            let mut at = hash as usize & (size - 1);
            loop {
                #[cfg(test)]
                {
                    self.work += 1;
                }
                let slot = &mut self.table[at];
                if slot.key == 0 {
                    *slot = Slot { hash: tag, key: index as u32 + 1 };
                    break;
                }
                if slot.hash == tag && keys[slot.key as usize - 1].token.decode(text) == content {
                    return Some(key.token.start);
                }
                at = (at + 1) & (size - 1);
            }
        }
        None
    }

    /// Forgets all keys, and large buffers too: one hostile body must not pin memory for the thread's life.
    pub(super) fn reset(&mut self) {
        self.open.clear();
        self.table.clear();
        if self.open.capacity() > RETAINED {
            self.open = Vec::new();
        }
        if self.table.capacity() > RETAINED {
            self.table = Vec::new();
        }
    }
}

enum Pairwise {
    Distinct,
    Duplicate(u32),
    /// Bytes cannot be compared because some key has escapes.
    Escaped,
}

fn pairwise(keys: &[Key], text: &str) -> Pairwise {
    for (index, key) in keys.iter().enumerate() {
        if key.token.escaped {
            return Pairwise::Escaped;
        }
        for other in &keys[..index] {
            if other.tag == key.tag && other.token.bytes(text) == key.token.bytes(text) {
                return Pairwise::Duplicate(key.token.start);
            }
        }
    }
    Pairwise::Distinct
}
