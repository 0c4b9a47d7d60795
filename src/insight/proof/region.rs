//! Sets of requests: unions of boxes, each a set of classes per dimension.

use std::collections::HashMap;

use super::bits::Bits;

/// What requests differ in; see [`super::space`].
pub(crate) const DIMENSIONS: usize = 7;

/// A product of sets, one per dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cube(pub(crate) [Bits; DIMENSIONS]);

impl Cube {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().any(Bits::is_empty)
    }

    pub(crate) fn and(&self, other: &Self) -> Option<Self> {
        if !self.meets(other) {
            return None;
        }
        Some(Self(std::array::from_fn(|d| self.0[d].and(&other.0[d]))))
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        (0..DIMENSIONS).all(|d| self.0[d].meets(&other.0[d]))
    }

    pub(crate) fn within(&self, other: &Self) -> bool {
        (0..DIMENSIONS).all(|d| self.0[d].within(&other.0[d]))
    }

    /// What is left without `other`, in boxes that do not overlap.
    pub(crate) fn minus(&self, other: &Self) -> Vec<Self> {
        if !self.meets(other) {
            return vec![self.clone()];
        }
        let mut left = Vec::new();
        let mut rest = self.clone();
        for d in 0..DIMENSIONS {
            let outside = rest.0[d].minus(&other.0[d]);
            if !outside.is_empty() {
                let mut piece = rest.clone();
                piece.0[d] = outside;
                left.push(piece);
            }
            rest.0[d] = rest.0[d].and(&other.0[d]);
        }
        left
    }

    /// A rough size, to look at larger ones first.
    fn weight(&self) -> f64 {
        self.0.iter().map(|bits| bits.len() as f64).product()
    }
}

/// What is left of `cubes` without `others`.
pub(crate) fn subtract(cubes: Vec<Cube>, others: &[Cube]) -> Vec<Cube> {
    others.iter().fold(cubes, |left, other| left.iter().flat_map(|cube| cube.minus(other)).collect())
}

/// Puts boxes together that differ in one dimension only.
pub(crate) fn merge(mut cubes: Vec<Cube>) -> Vec<Cube> {
    loop {
        let before = cubes.len();
        for d in 0..DIMENSIONS {
            let mut groups: HashMap<Cube, Bits> = HashMap::new();
            let mut order = Vec::new();
            for mut cube in cubes {
                let bits = std::mem::take(&mut cube.0[d]);
                match groups.get_mut(&cube) {
                    Some(all) => *all = all.or(&bits),
                    None => {
                        order.push(cube.clone());
                        groups.insert(cube, bits);
                    }
                }
            }
            cubes = order
                .into_iter()
                .map(|mut cube| {
                    cube.0[d] = groups.remove(&cube).unwrap_or_default();
                    cube
                })
                .collect();
        }
        if cubes.len() == before {
            return cubes;
        }
    }
}

/// The same set in few, large boxes, which may overlap: each grows within `room` until it meets one of `others`, then
/// those that the rest covers go. `others` must hold all of `room` that is not in `cubes`.
pub(crate) fn simplify(cubes: Vec<Cube>, room: &Cube, others: &[Cube]) -> Vec<Cube> {
    let mut grown: Vec<Cube> = Vec::new();
    for mut cube in merge(cubes) {
        if grown.iter().any(|wide| cube.within(wide)) {
            continue;
        }
        for d in 0..DIMENSIONS {
            let mut free = room.0[d].clone();
            for other in others {
                let blocks = (0..DIMENSIONS).all(|e| e == d || cube.0[e].meets(&other.0[e]));
                if blocks {
                    free = free.minus(&other.0[d]);
                }
            }
            cube.0[d] = cube.0[d].or(&free);
        }
        grown.retain(|narrow| !narrow.within(&cube));
        grown.push(cube);
    }
    grown.sort_by(|a, b| a.weight().total_cmp(&b.weight()));
    let mut at = 0;
    while at < grown.len() {
        let rest: Vec<Cube> =
            grown.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, cube)| cube.clone()).collect();
        if subtract(vec![grown[at].clone()], &rest).is_empty() {
            grown.remove(at);
        } else {
            at += 1;
        }
    }
    grown.reverse();
    grown
}
