use super::*;
use crate::keyspace::KeySpace;
use proptest::prelude::*;

fn space(dtype: &str) -> ChainRoot {
    let builder = KeySpace::builder("model").revision("r1").dtype(dtype).layout("hf:L2HTD");
    builder.block_tokens(16).layers(2).kv_heads(2).build().unwrap().root()
}

#[test]
fn the_same_input_gives_another_id_in_every_domain() {
    let root = space("float32");
    let ids = [BlockId::named("abc"), BlockId::content(b"abc"), BlockId::foreign(&root, b"abc")];
    for (i, a) in ids.iter().enumerate() {
        for b in &ids[i + 1..] {
            assert_ne!(a.as_bytes()[..31], b.as_bytes()[..31], "apart without the domain byte too");
        }
    }
    assert_eq!(ids.map(|id| id.kind()), [IdKind::Name, IdKind::Content, IdKind::Foreign]);
}

#[test]
fn only_names_are_replaceable() {
    assert!(BlockId::named("a").kind().replaceable());
    assert!(!BlockId::content(b"a").kind().replaceable());
    assert!(!BlockId::foreign(&space("float32"), b"a").kind().replaceable());
    assert!(!space("float32").chain(&[1; 16])[0].kind().replaceable());
    assert!(!BlockId::from_bytes([7; 32]).kind().replaceable());
}

#[test]
fn one_engine_hash_in_two_key_spaces_names_two_blocks() {
    let hash = [0x5A; 32];
    let (a, b) = (BlockId::foreign(&space("bfloat16"), &hash), BlockId::foreign(&space("fp8"), &hash));
    assert_ne!(a, b);
    assert_ne!(a.as_bytes(), &hash);
}

#[test]
fn debug_and_display_are_hex() {
    let id = BlockId::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert_eq!((format!("{id:?}"), id.to_string(), id.to_hex()), (hex.into(), hex.into(), hex.into()));
    assert_eq!(id.words()[0], 0x0706_0504_0302_0100);
}

#[test]
fn what_is_not_64_hex_digits_is_refused_with_its_length() {
    let sixty_four = "g".repeat(64);
    // Two-byte characters: 64 bytes, 32 characters, none of them a digit.
    let umlauts = "ä".repeat(32);
    for text in ["", "0", "00", &"0".repeat(63), &"0".repeat(65), &sixty_four, &umlauts, &" 0".repeat(32)] {
        let error = text.parse::<BlockId>().unwrap_err();
        assert!(error.to_string().contains(&format!("{} bytes", text.len())), "{error}");
    }
    assert_eq!("aF".repeat(32).parse::<BlockId>().unwrap(), BlockId::from_bytes([0xAF; 32]));
}

proptest! {
    #[test]
    fn hex_and_words_round_trip(bytes: [u8; 32]) {
        let id = BlockId::from_bytes(bytes);
        prop_assert_eq!(id.to_hex().parse::<BlockId>().unwrap(), id);
        prop_assert_eq!(id.to_hex().to_uppercase().parse::<BlockId>().unwrap(), id);
        prop_assert_eq!(BlockId::from_words(id.words()), id);
    }

    #[test]
    fn parsing_any_text_never_panics(text: String) {
        let _ = text.parse::<BlockId>();
    }

    #[test]
    fn the_order_of_ids_is_that_of_their_hex(a: [u8; 32], b: [u8; 32]) {
        let (a, b) = (BlockId::from_bytes(a), BlockId::from_bytes(b));
        prop_assert_eq!(a.cmp(&b), a.to_hex().cmp(&b.to_hex()));
    }
}
