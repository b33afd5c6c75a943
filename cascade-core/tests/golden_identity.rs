//! Ids against vectors that an independent Python implementation made
//! (`cascade-py/tests/golden_identity.py`), the same file that the Python binding is tested with.

#![allow(clippy::unwrap_used, reason = "clippy sees helpers of an integration test as library code")]

use cascade_core::chain::{ChainRoot, PrefixChain};
use cascade_core::id::{BlockId, IdKind};
use cascade_core::keyspace::KeySpace;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    version: u32,
    names: Vec<Name>,
    contents: Vec<Content>,
    key_spaces: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    unit_hex: String,
    times: usize,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    title: String,
    space: Space,
    root: String,
    foreign: Vec<Foreign>,
    chains: Vec<Chain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    hash_hex: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    tokens: Vec<u32>,
    extras_hex: Vec<String>,
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Weights {
    Revision(String),
    Fingerprint(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Space {
    model: String,
    weights: Weights,
    #[serde(default)]
    quantisation: String,
    dtype: String,
    layout: String,
    block_tokens: u32,
    layers: u32,
    layer_range: Option<(u32, u32)>,
    #[serde(default)]
    kv_group: u32,
    kv_heads: u32,
    head_range: Option<(u32, u32)>,
    adapter: Option<String>,
    tenant_secret_hex: Option<String>,
}

fn vectors() -> Vectors {
    let vectors: Vectors = serde_json::from_str(include_str!("../testdata/identity.json")).unwrap();
    assert_eq!(vectors.version, 1);
    vectors
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn root(space: &Space) -> ChainRoot {
    let mut builder = KeySpace::builder(&space.model).quantisation(&space.quantisation).dtype(&space.dtype);
    builder = match &space.weights {
        Weights::Revision(revision) => builder.revision(revision),
        Weights::Fingerprint(fingerprint) => builder.fingerprint(fingerprint),
    };
    builder = builder.layout(&space.layout).block_tokens(space.block_tokens).layers(space.layers);
    builder = builder.kv_group(space.kv_group).kv_heads(space.kv_heads);
    if let Some((start, end)) = space.layer_range {
        builder = builder.layer_range(start..end);
    }
    if let Some((start, end)) = space.head_range {
        builder = builder.head_range(start..end);
    }
    if let Some(adapter) = &space.adapter {
        builder = builder.adapter(adapter);
    }
    if let Some(secret) = &space.tenant_secret_hex {
        builder = builder.tenant_secret(unhex(secret));
    }
    builder.build().unwrap().root()
}

fn hex(ids: &[BlockId]) -> Vec<String> {
    ids.iter().map(BlockId::to_hex).collect()
}

#[test]
fn names_and_contents() {
    let vectors = vectors();
    assert!(vectors.names.len() >= 7 && vectors.contents.len() >= 6);
    for Name { name, id } in &vectors.names {
        assert_eq!(&BlockId::named(name).to_hex(), id, "name {name:?}");
        assert_eq!(id.parse::<BlockId>().unwrap().kind(), IdKind::Name);
    }
    for Content { unit_hex, times, id } in &vectors.contents {
        let content = unhex(unit_hex).repeat(*times);
        assert_eq!(&BlockId::content(&content).to_hex(), id, "{unit_hex} x {times}");
    }
}

#[test]
fn roots_and_foreign_hashes() {
    let vectors = vectors();
    assert!(vectors.key_spaces.len() >= 13);
    for Case { title, space, root: expected, foreign, .. } in &vectors.key_spaces {
        let root = root(space);
        assert_eq!(&root.as_bytes()[..], unhex(expected), "root of {title}");
        assert_eq!(foreign.len(), 4);
        for Foreign { hash_hex, id } in foreign {
            assert_eq!(&BlockId::foreign(&root, &unhex(hash_hex)).to_hex(), id, "{hash_hex} in {title}");
        }
    }
}

#[test]
fn chains_at_once_and_token_by_token() {
    let mut blocks = 0;
    for Case { title, space, chains, .. } in &vectors().key_spaces {
        let root = root(space);
        for Chain { tokens, extras_hex, ids } in chains {
            let extras: Vec<Vec<u8>> = extras_hex.iter().map(|extra| unhex(extra)).collect();
            let all: Vec<&[u8]> = extras.iter().map(Vec::as_slice).collect();
            let at_once =
                if all.is_empty() { root.chain(tokens) } else { root.chain_with(tokens, &all).unwrap() };
            assert_eq!(&hex(&at_once), ids, "{tokens:?} in {title}");

            let mut growing = PrefixChain::new(root.clone());
            for (i, token) in tokens.iter().enumerate() {
                if let Some(extra) = all.get(i / space.block_tokens as usize) {
                    growing.set_extra(extra);
                }
                growing.push(*token);
            }
            assert_eq!(&hex(growing.ids()), ids, "{tokens:?} in {title}, token by token");
            blocks += ids.len();
        }
    }
    assert!(blocks > 200, "{blocks} ids compared");
}
