use super::*;
use crate::id::IdKind;
use crate::keyspace::KeySpace;
use proptest::collection::vec;
use proptest::prelude::*;

fn root(block_tokens: u32) -> ChainRoot {
    let builder = KeySpace::builder("model").revision("r1").dtype("float32").layout("hf:L2HTD");
    builder.block_tokens(block_tokens).layers(2).kv_heads(2).build().unwrap().root()
}

#[test]
fn only_whole_blocks_have_ids() {
    let root = root(4);
    for (tokens, blocks) in [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)] {
        assert_eq!(root.chain(&vec![1; tokens]).len(), blocks);
    }
    assert!(root.chain(&[1; 8]).iter().all(|id| id.kind() == IdKind::Chain));
}

#[test]
fn a_block_depends_on_all_that_is_before_it() {
    let root = root(2);
    let (a, b) = (root.chain(&[1, 2, 9, 9]), root.chain(&[1, 3, 9, 9]));
    assert_ne!(a[0], b[0]);
    assert_ne!(a[1], b[1], "the same tokens behind another prefix");
    assert_ne!(
        root.chain(&[9, 9, 9, 9])[0],
        root.chain(&[9, 9, 9, 9])[1],
        "the same tokens at another place"
    );
}

#[test]
fn an_extra_belongs_to_one_block_and_empty_is_none() {
    let root = root(2);
    let tokens = [1, 2, 3, 4, 5, 6];
    let plain = root.chain(&tokens);
    assert_eq!(root.chain_with(&tokens, &[b"", b"", b""]).unwrap(), plain);
    let salted = root.chain_with(&tokens, &[b"", b"salt", b""]).unwrap();
    assert_eq!(salted[0], plain[0]);
    assert_ne!(salted[1], plain[1]);
    assert_ne!(salted[2], plain[2], "an extra changes all that follow");
    let other = root.chain_with(&tokens, &[b"", b"", b"salt"]).unwrap();
    assert_ne!(salted[2], other[2]);
}

#[test]
fn a_wrong_number_of_extras_is_an_error() {
    let root = root(2);
    for extras in [0, 1, 4] {
        let error = root.chain_with(&[1, 2, 3, 4, 5], &vec![&b"x"[..]; extras]).unwrap_err();
        assert!(error.to_string().contains(&format!("{extras} extras for 2 whole blocks")), "{error}");
    }
    let (exact, one_more) = ([&b"x"[..]; 2], [&b"x"[..]; 3]);
    let five = [1, 2, 3, 4, 5];
    assert_eq!(root.chain_with(&five, &exact), root.chain_with(&five, &one_more));
}

#[test]
fn debug_output_does_not_hold_the_key() {
    let root = root(4);
    let key: String = root.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let shown = format!("{root:?} {:?}", PrefixChain::new(root.clone()));
    assert!(shown.contains(&root.fingerprint()));
    assert!(!shown.contains(&key[..16]) && !shown.contains(&format!("{:?}", root.as_bytes())));
}

proptest! {
    #[test]
    fn extending_in_any_pieces_is_recomputing(
        block_tokens in 1u32..9,
        pieces in vec(vec(any::<u32>(), 0..20), 0..8),
    ) {
        let root = root(block_tokens);
        let mut chain = PrefixChain::new(root.clone());
        let mut returned = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            if i % 2 == 0 {
                returned.extend_from_slice(chain.extend(piece));
            } else {
                returned.extend(piece.iter().filter_map(|token| chain.push(*token)));
            }
        }
        let all = pieces.concat();
        let whole = all.len() / block_tokens as usize * block_tokens as usize;
        prop_assert_eq!(&returned, &root.chain(&all));
        prop_assert_eq!(chain.ids(), &returned[..]);
        prop_assert_eq!(chain.pending(), &all[whole..]);
    }

    #[test]
    fn a_changed_token_changes_its_block_and_all_later_ones(
        block_tokens in 1u32..5,
        tokens in vec(any::<u32>(), 1..40),
        place: prop::sample::Index,
        change in 1u32..,
    ) {
        let root = root(block_tokens);
        let place = place.index(tokens.len());
        let mut changed = tokens.clone();
        changed[place] ^= change;
        let first = place / block_tokens as usize;
        for (i, (a, b)) in root.chain(&tokens).iter().zip(root.chain(&changed)).enumerate() {
            prop_assert_eq!(*a == b, i < first, "block {}", i);
        }
    }

    #[test]
    fn extras_step_by_step_are_extras_at_once(
        tokens in vec(any::<u32>(), 12),
        extras in vec(vec(any::<u8>(), 0..5), 4),
    ) {
        let root = root(3);
        let mut chain = PrefixChain::new(root.clone());
        for (block, extra) in tokens.chunks(3).zip(&extras) {
            chain.push(block[0]);
            chain.set_extra(extra);
            chain.extend(&block[1..]);
        }
        let extras: Vec<&[u8]> = extras.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(chain.ids(), &root.chain_with(&tokens, &extras).unwrap()[..]);
    }

    #[test]
    fn tokens_cannot_be_moved_into_the_extra(tokens in vec(any::<u32>(), 4), cut in 1usize..4) {
        // Another block size under the same key, which key spaces never make: the counts still keep them apart.
        let key = *root(4).as_bytes();
        let (long, short) = (ChainRoot::new(key, 4), ChainRoot::new(key, 4 - u32::try_from(cut).unwrap()));
        let moved: Vec<u8> = tokens[4 - cut..].iter().flat_map(|token| token.to_le_bytes()).collect();
        let extra = short.chain_with(&tokens[..4 - cut], &[&moved]).unwrap();
        prop_assert_ne!(long.chain(&tokens)[0], extra[0]);
    }
}
