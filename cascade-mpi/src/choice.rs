//! Which owner of a block is asked first: a pure function, so that it can be simulated at any scale.

use crate::directory::Owner;

/// What is known of a rank that has a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its memory is mapped here.
    pub is_near: bool,
    /// It does not answer.
    pub is_out: bool,
    /// Other ranks that read from it now, as far as is known.
    pub readers: u64,
}

/// The owners in the order in which `own` asks them: mapped memory first, those that do not answer last, of the others the less
/// busy; among equals by turns that differ from rank to rank, so that not all ask the same one.
#[must_use]
pub fn in_order(own: u32, owners: &[Owner], standing: impl Fn(u32) -> Standing) -> Vec<Owner> {
    let mut ordered = owners.to_vec();
    ordered.rotate_left(own as usize % owners.len().max(1));
    ordered.sort_by_cached_key(|owner| {
        let Standing { is_near, is_out, readers } = standing(owner.rank);
        (!is_near, is_out, readers)
    });
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(ranks: &[u32]) -> Vec<Owner> {
        ranks
            .iter()
            .map(|rank| Owner { rank: *rank, slot: 0, generation: 0, incarnation: 0, offset: 0 })
            .collect()
    }

    fn ranks(owners: &[Owner]) -> Vec<u32> {
        owners.iter().map(|owner| owner.rank).collect()
    }

    #[test]
    fn the_less_busy_is_asked_and_who_is_out_comes_last() {
        let standing = |rank: u32| match rank {
            1 => Standing { readers: 5, ..Standing::default() },
            2 => Standing { readers: 2, ..Standing::default() },
            3 => Standing { is_out: true, ..Standing::default() },
            _ => Standing { is_near: true, readers: 100, ..Standing::default() },
        };
        assert_eq!(ranks(&in_order(9, &owners(&[1, 2, 3, 4]), standing)), [4, 2, 1, 3]);
        assert!(in_order(9, &[], standing).is_empty());
    }

    #[test]
    fn equals_are_asked_by_turns() {
        let first = |own| in_order(own, &owners(&[1, 2, 3]), |_| Standing::default())[0].rank;
        assert_eq!([first(0), first(1), first(2), first(3)], [1, 2, 3, 1]);
    }
}
