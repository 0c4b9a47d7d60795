//! Links between events, so that none can be changed, removed, added or moved unseen.
//!
//! There is a chain for each tenant, writer (boot id) and class. A link is the hash of the link before it, of what a
//! header says (chain, sequence, time) and of a *commitment* to the payload: the hash of a random salt and the
//! payload. Payload and salt can be erased later, for a person's sake, and the chain still holds: the commitment stays, and without
//! the salt nobody can find out by guessing what was committed to. Sequences have no gaps and times never go back, so
//! that a range of time is a range of the chain, and a chain whose beginning was dropped (retention) holds from the
//! link where it goes on.
//!
//! Why not one chain for each tenant: replicas would have to take turns. Why one for each class: their retention
//! differs, and dropping old requests must not tear holes between actions.

use ring::digest::{Context, SHA256};

use super::event::Class;
use super::segment::WriterId;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Which chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// Whose events.
    pub tenant: String,
    /// Who wrote them.
    pub writer: WriterId,
    /// Which plane they are from.
    pub class: Class,
}

/// How far a chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last event's number; 0 before the first.
    pub sequence: u64,
    /// The last event's link; the chain's own hash before the first.
    pub link: Hash,
    /// The last event's time.
    pub time_us: u64,
}

/// What a new event got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The commitment to its payload.
    pub commitment: Hash,
    /// The chain's head after it.
    pub head: Head,
}

impl ChainId {
    /// The head before the first event.
    pub fn genesis(&self) -> Head {
        Head { sequence: 0, link: self.digest(), time_us: 0 }
    }

    fn digest(&self) -> Hash {
        let tenant = self.tenant.as_bytes();
        let length = (tenant.len() as u64).to_be_bytes();
        sha256(&[
            b"tollgate-audit-chain-1",
            &length,
            tenant,
            self.writer.as_bytes(),
            self.class.as_str().as_bytes(),
        ])
    }
}

/// The commitment to a payload.
pub fn commit(salt: &[u8; 16], payload: &[u8]) -> Hash {
    sha256(&[b"tollgate-audit-payload-1", salt, payload])
}

/// Follows one chain.
#[derive(Clone, Debug)]
pub struct Chain {
    digest: Hash,
    head: Head,
}

impl Chain {
    /// The chain `id` as far as `head`.
    pub fn at(id: &ChainId, head: Head) -> Self {
        Self { digest: id.digest(), head }
    }

    /// How far it is.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The next event. Its time is moved forward to the last one's if it lies before.
    pub fn append(&mut self, time_us: u64, salt: &[u8; 16], payload: &[u8]) -> Linked {
        let commitment = commit(salt, payload);
        let head = self.follow(time_us.max(self.head.time_us), &commitment);
        Linked { commitment, head }
    }

    /// The next event, of which only header and commitment are known.
    pub fn follow(&mut self, time_us: u64, commitment: &Hash) -> Head {
        let sequence = self.head.sequence + 1;
        let link = sha256(&[
            &self.head.link,
            &self.digest,
            &sequence.to_be_bytes(),
            &time_us.to_be_bytes(),
            commitment,
        ]);
        self.head = Head { sequence, link, time_us };
        self.head
    }
}

pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tenant: &str) -> ChainId {
        ChainId { tenant: tenant.to_owned(), writer: WriterId::from_bytes([1; 16]), class: Class::Data }
    }

    #[test]
    fn every_part_of_an_event_moves_the_link() {
        let base = |tenant: &str, time, salt: u8, payload: &[u8]| {
            let id = id(tenant);
            let mut chain = Chain::at(&id, id.genesis());
            chain.append(time, &[salt; 16], payload).head.link
        };
        let same = base("a", 1, 1, b"x");
        assert_eq!(same, base("a", 1, 1, b"x"));
        for other in
            [base("b", 1, 1, b"x"), base("a", 2, 1, b"x"), base("a", 1, 2, b"x"), base("a", 1, 1, b"y")]
        {
            assert_ne!(same, other);
        }
    }

    #[test]
    fn an_erased_payload_leaves_the_chain_as_it_was() {
        let id = id("a");
        let mut writer = Chain::at(&id, id.genesis());
        let first = writer.append(5, &[1; 16], b"secret");
        let second = writer.append(3, &[2; 16], b"more");
        assert_eq!(second.head.time_us, 5, "time never goes back");
        let mut reader = Chain::at(&id, id.genesis());
        reader.follow(5, &first.commitment);
        assert_eq!(reader.follow(5, &commit(&[2; 16], b"more")), second.head);
        // And from the middle, once the beginning has been dropped.
        let mut late = Chain::at(&id, first.head);
        assert_eq!(late.follow(5, &second.commitment), second.head);
    }
}
