//! What blocks are called.

use cascade_core::id::BlockId;
use cascade_core::keyspace::KeySpace;
use cascade_core::units::{format_size, parse_size, parse_sizes};

use crate::Input;

/// Reads the input as an id, as sizes and as the fields of a key space.
pub fn make(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(id) = text.parse::<BlockId>() {
        assert_eq!(id.to_hex().parse::<BlockId>().ok(), Some(id));
        assert_eq!(BlockId::from_words(id.words()), id);
    }
    if let Ok(size) = parse_size(&text) {
        // For people, with one decimal: not always what can be read back.
        let again = parse_size(&format_size(size)).unwrap_or(size);
        assert!(again.abs_diff(size) <= size / 16, "{text:?} is {size}, shown as {again}");
    }
    let _ = parse_sizes(&text);
    let mut input = Input(data);
    let number = |input: &mut Input<'_>| input.number() as u32;
    let Ok(space) = key_space(&mut input, number) else { return };
    let root = space.root();
    assert_eq!(root.as_bytes(), space.clone().root().as_bytes());
    let tokens: Vec<u32> = std::iter::from_fn(|| (!input.is_empty()).then(|| number(&mut input))).collect();
    let chain = root.chain(&tokens);
    assert_eq!(chain.len(), tokens.len() / root.block_tokens() as usize);
    assert_ne!(BlockId::foreign(&root, data), BlockId::content(data));
}

fn key_space(
    input: &mut Input<'_>,
    number: impl Fn(&mut Input<'_>) -> u32,
) -> Result<KeySpace, cascade_core::keyspace::KeySpaceError> {
    let mut builder = KeySpace::builder(input.text()).revision(input.text()).dtype(input.text());
    builder = builder.layout(input.text()).quantisation(input.text()).adapter(input.text());
    builder = builder.block_tokens(number(input)).layers(number(input)).kv_heads(number(input));
    if input.byte() % 2 == 1 {
        builder = builder.layer_range(number(input)..number(input)).head_range(number(input)..number(input));
    }
    if input.byte() % 2 == 1 {
        builder = builder.tenant_secret(input.text());
    }
    builder.build()
}

/// An id, sizes, and a key space that can be built.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut space = Vec::new();
    for field in ["model", "rev", "bf16", "NHD", "none", "lora"] {
        space.push(field.len() as u8);
        space.extend_from_slice(field.as_bytes());
    }
    for number in [2_u64, 32, 8] {
        space.extend_from_slice(&number.to_le_bytes());
    }
    space.extend_from_slice(&[0, 0]);
    space.extend_from_slice(&[7; 64]);
    vec![BlockId::named("x").to_hex().into_bytes(), b"1.5GiB".to_vec(), b"4KiB,1MiB".to_vec(), space]
}
