//! The prefix of a prompt: its ids from a key space and its tokens, and where it breaks.

use std::io::Read;
use std::path::{Path, PathBuf};

use cascade_core::keyspace::KeySpace;
use cascade_core::{Error, ErrorKind, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Answer, Asked};
use crate::cli::text::of;

/// Longest file of tokens or of a key space, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// Options that name a prompt.
#[derive(Args, Debug)]
pub(super) struct Prompt {
    /// Key space of the engine: a TOML or JSON file with the names of Python's `KeySpace(...)` (tenant_secret in hexadecimal).
    #[arg(long, value_name = "FILE", requires = "tokens")]
    space: Option<PathBuf>,
    /// Tokens of the prompt: numbers, a JSON list, or {"tokens": [..], "extra": [hexadecimal, one for each block]}; - for standard input.
    #[arg(long, value_name = "FILE", requires = "space")]
    tokens: Option<PathBuf>,
}

/// What a prefix comes to.
#[derive(Debug, Serialize)]
pub(super) struct Prefix {
    space: String,
    block_tokens: u32,
    tokens: usize,
    blocks: usize,
    /// Tokens behind the last whole block: they have no id.
    rest_tokens: usize,
    hit_blocks: usize,
    hit_tokens: usize,
    /// The first block that is no hit; `null` where all are.
    first_break: Option<usize>,
    /// Hits behind it, which no request can use until the break is filled.
    stranded_blocks: usize,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpaceFile {
    model: String,
    dtype: String,
    layout: String,
    block_tokens: u32,
    layers: u32,
    kv_heads: u32,
    weights: Option<String>,
    revision: Option<String>,
    quantisation: Option<String>,
    kv_group: Option<u32>,
    head_range: Option<(u32, u32)>,
    layer_range: Option<(u32, u32)>,
    adapter: Option<String>,
    tenant_secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<u32>,
    extra: Option<Vec<String>>,
}

/// A prompt whose ids are known.
#[derive(Debug)]
pub(super) struct Named {
    space: KeySpace,
    tokens: usize,
    pub(super) asked: Vec<Asked>,
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(MOST_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|error| wrong(path, "cannot be read").with_source(error))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong(path, "longer than 256 MiB: give the tokens of one prompt"));
    }
    Ok(text)
}

fn hex(path: &Path, text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    // What it was is not said: it may be a secret.
    bytes.ok_or_else(|| wrong(path, "tenant_secret and extra are hexadecimal digits, two for each byte"))
}

fn space(path: &Path) -> Result<KeySpace> {
    let text = read(path)?;
    let file: SpaceFile = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| wrong(path, format!("no key space: {error}")))?
    } else {
        // Its own message shows the line, which may be the secret.
        toml::from_str(&text)
            .map_err(|error: toml::de::Error| wrong(path, format!("no key space: {}", error.message())))?
    };
    let mut builder = KeySpace::builder(file.model).dtype(file.dtype).layout(file.layout);
    builder = builder.block_tokens(file.block_tokens).layers(file.layers).kv_heads(file.kv_heads);
    builder = match (file.weights, file.revision) {
        (Some(weights), None) => builder.fingerprint(weights),
        (None, Some(revision)) => builder.revision(revision),
        _ => {
            return Err(wrong(
                path,
                "give exactly one of weights (a fingerprint of the parameters) and revision",
            ));
        }
    };
    if let Some(quantisation) = file.quantisation {
        builder = builder.quantisation(quantisation);
    }
    if let Some(group) = file.kv_group {
        builder = builder.kv_group(group);
    }
    if let Some((first, end)) = file.head_range {
        builder = builder.head_range(first..end);
    }
    if let Some((first, end)) = file.layer_range {
        builder = builder.layer_range(first..end);
    }
    if let Some(adapter) = file.adapter {
        builder = builder.adapter(adapter);
    }
    if let Some(secret) = file.tenant_secret {
        builder = builder.tenant_secret(hex(path, &secret)?);
    }
    builder.build().map_err(|error| wrong(path, error))
}

fn tokens(path: &Path) -> Result<TokensFile> {
    let text = read(path)?;
    let json = |error: serde_json::Error| wrong(path, format!("no tokens: {error}"));
    match text.trim_start().chars().next() {
        Some('{') => serde_json::from_str(&text).map_err(json),
        Some('[') => Ok(TokensFile { tokens: serde_json::from_str(&text).map_err(json)?, extra: None }),
        _ => {
            let numbers = text.split([' ', '\n', '\r', '\t', ',']).filter(|word| !word.is_empty());
            let number = |word: &str| {
                word.parse().map_err(|_| {
                    wrong(path, format!("no tokens: {word:?} is no number from 0 to 4294967295"))
                })
            };
            Ok(TokensFile { tokens: numbers.map(number).collect::<Result<_>>()?, extra: None })
        }
    }
}

impl Prompt {
    /// The ids of the prompt; `None` where none is named.
    pub(super) fn named(&self) -> Result<Option<Named>> {
        let (Some(space_path), Some(tokens_path)) = (&self.space, &self.tokens) else { return Ok(None) };
        let (space, given) = (space(space_path)?, tokens(tokens_path)?);
        let root = space.root();
        let ids = match &given.extra {
            None => root.chain(&given.tokens),
            Some(extra) => {
                let extra: Vec<Vec<u8>> =
                    extra.iter().map(|text| hex(tokens_path, text)).collect::<Result<_>>()?;
                let extra: Vec<&[u8]> = extra.iter().map(Vec::as_slice).collect();
                root.chain_with(&given.tokens, &extra).map_err(|error| wrong(tokens_path, error))?
            }
        };
        if ids.is_empty() {
            let (count, block) = (of(given.tokens.len() as u64, "token"), space.block_tokens());
            return Err(wrong(
                tokens_path,
                format!("{count} and no whole block of {block}: nothing of it is ever stored"),
            ));
        }
        let size = space.block_tokens() as usize;
        let asked = ids.into_iter().enumerate().map(|(at, id)| Asked {
            given: format!("block {at} (tokens {} to {})", at * size, (at + 1) * size - 1),
            id,
        });
        Ok(Some(Named { asked: asked.collect(), tokens: given.tokens.len(), space }))
    }
}

impl Named {
    pub(super) fn prefix(&self, answers: &[Answer]) -> Prefix {
        let size = self.space.block_tokens() as usize;
        let hits = answers.iter().take_while(|answer| answer.verdict == "hit").count();
        let first_break = (hits < answers.len()).then_some(hits);
        let stranded = answers.iter().skip(hits).filter(|answer| answer.verdict == "hit").count();
        let mut text = format!(
            "{hits} of {} hit: {} of {} need no prefill",
            of(answers.len() as u64, "block"),
            hits * size,
            of(self.tokens as u64, "token")
        );
        if let Some(answer) = first_break.and_then(|at| answers.get(at)) {
            text.push_str(&format!("\nthe prefix breaks at {}: {}", answer.given, answer.text));
        }
        if stranded > 0 {
            text.push_str(&format!(
                "\n{} behind the break cannot be used until it is filled",
                of(stranded as u64, "hit")
            ));
        }
        if hits == 0 && stranded == 0 {
            text.push_str(&format!("\nthe key space looked in is {}", self.fingerprint()));
        }
        Prefix {
            space: self.fingerprint(),
            block_tokens: self.space.block_tokens(),
            tokens: self.tokens,
            blocks: answers.len(),
            rest_tokens: self.tokens - answers.len() * size,
            hit_blocks: hits,
            hit_tokens: hits * size,
            first_break,
            stranded_blocks: stranded,
            text,
        }
    }

    fn fingerprint(&self) -> String {
        self.space.root().fingerprint()
    }
}

impl Prefix {
    /// For people: neighbours of which the same is to be said in one line, then what it comes to.
    pub(super) fn lines(&self, answers: &[Answer]) -> Vec<String> {
        let alike = |a: &Answer, b: &Answer| (a.verdict, a.arena, a.files) == (b.verdict, b.arena, b.files);
        let mut lines = Vec::new();
        let mut at = 0;
        for run in answers.chunk_by(|a, b| alike(a, b)) {
            let (first, last) = (at, at + run.len() - 1);
            at += run.len();
            let blocks =
                if first == last { format!("block {first}") } else { format!("blocks {first} to {last}") };
            lines.extend(run.first().map(|answer| {
                format!("{blocks}  {}  (arena: {}, files: {})", answer.verdict, answer.arena, answer.files)
            }));
        }
        lines.push(self.text.clone());
        lines
    }
}
