//! Lists of pieces, cut.

use cascade_core::memory::{Piece, SgList};

use crate::layout::PAGE_BYTES;

/// Bytes of all pieces.
pub(crate) fn total(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::len).sum()
}

/// The first `most` bytes.
pub(crate) fn head(pieces: &[Piece], most: usize) -> Vec<Piece> {
    let mut left = most;
    let mut head = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let part = piece.len().min(left);
        head.extend(piece.part(0, part).filter(|part| !part.is_empty()));
        left -= part;
    }
    head
}

/// What is left after the first `skip` bytes.
pub(crate) fn rest(pieces: &[Piece], mut skip: usize) -> Vec<Piece> {
    let mut left = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let part = skip.min(piece.len());
        skip -= part;
        left.extend(piece.part(part, piece.len() - part).filter(|part| !part.is_empty()));
    }
    left
}

/// Groups of `bytes` bytes, the last one of what is left.
pub(crate) fn cut(pieces: &[Piece], bytes: usize) -> Vec<Vec<Piece>> {
    let (mut groups, mut group, mut room) = (Vec::new(), Vec::new(), bytes);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let len = room.min(piece.len() - at);
            group.extend(piece.part(at, len));
            (at, room) = (at + len, room - len);
            if room == 0 {
                groups.push(std::mem::take(&mut group));
                room = bytes;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// Groups of about `bytes` bytes for a place in a file that begins at `start`, each but the last ending at a multiple of
/// `stripe`: no call touches a stripe that another call of the same run writes.
pub(crate) fn cut_at(pieces: &[Piece], start: u64, bytes: usize, stripe: u64) -> Vec<Vec<Piece>> {
    let stripe = usize::try_from(stripe).unwrap_or(usize::MAX).max(1);
    let each = (bytes / stripe).max(1).saturating_mul(stripe);
    let into_stripe = usize::try_from(start % stripe as u64).unwrap_or(0);
    let first = each - into_stripe;
    let mut groups = cut(&head(pieces, first), first);
    groups.append(&mut cut(&rest(pieces, first), each));
    groups
}

/// Whether all pieces begin and end at page boundaries.
pub(crate) fn are_pages(pieces: &[Piece]) -> bool {
    let aligned = |piece: &Piece| {
        (piece.as_ptr() as usize).is_multiple_of(PAGE_BYTES) && piece.len().is_multiple_of(PAGE_BYTES)
    };
    pieces.iter().all(aligned)
}

/// The pieces as a list.
pub(crate) fn list(pieces: Vec<Piece>) -> SgList {
    let mut list = SgList::new();
    pieces.into_iter().for_each(|piece| list.push(piece));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::bytes_of;

    #[test]
    fn lists_are_cut_where_they_should() {
        let bytes: Vec<u8> = (0..100).collect();
        let whole = Piece::shared(bytes.clone().into());
        let pieces: Vec<Piece> = [(0, 10), (10, 1), (11, 60), (71, 29)]
            .iter()
            .filter_map(|(at, len)| whole.part(*at, *len))
            .collect();
        for at in [0, 1, 10, 11, 50, 99, 100] {
            assert_eq!(bytes_of(&head(&pieces, at)), bytes[..at]);
            assert_eq!(bytes_of(&rest(&pieces, at)), bytes[at..]);
        }
        for len in [1, 7, 10, 50, 100, 200] {
            let groups: Vec<Vec<u8>> = cut(&pieces, len).iter().map(|group| bytes_of(group)).collect();
            assert_eq!(groups, bytes.chunks(len).map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
        for (start, each, stripe, lens) in [
            (0, 32, 16, vec![32, 32, 32, 4]),
            (8, 32, 16, vec![24, 32, 32, 12]),
            (33, 5, 16, vec![15, 16, 16, 16, 16, 16, 5]),
            (16, 500, 16, vec![100]),
        ] {
            let groups = cut_at(&pieces, start, each, stripe);
            assert_eq!(groups.iter().map(|group| total(group)).collect::<Vec<_>>(), lens);
            assert_eq!(groups.iter().flat_map(|group| bytes_of(group)).collect::<Vec<_>>(), bytes);
        }
    }
}
