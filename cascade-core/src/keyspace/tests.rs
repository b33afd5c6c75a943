use super::*;
use proptest::option;
use proptest::prelude::*;

fn complete() -> KeySpaceBuilder {
    let builder = KeySpace::builder("model").revision("r1").dtype("float32").layout("hf:L2HTD");
    builder.block_tokens(16).layers(4).kv_heads(4)
}

/// Reads an encoding back. That it always succeeds with the fields that went in is the proof that no two
/// key spaces encode alike.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = u64::from_le_bytes(self.take(8).try_into().unwrap());
        self.take(usize::try_from(length).unwrap())
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn optional(&mut self) -> Option<&'a [u8]> {
        match self.take(1) {
            [0] => None,
            [1] => Some(self.bytes()),
            other => panic!("presence byte {other:?}"),
        }
    }

    fn key_space(mut self) -> KeySpace {
        assert_eq!(self.take(1), [1], "version");
        let model = self.text();
        let weights = match self.take(1) {
            [0] => Weights::Revision(self.text()),
            [1] => Weights::Fingerprint(self.text()),
            other => panic!("weights tag {other:?}"),
        };
        let space = KeySpace {
            model,
            weights,
            quantisation: self.text(),
            dtype: self.text(),
            layout: self.text(),
            block_tokens: self.number(),
            layers: self.number(),
            layer_range: self.number()..self.number(),
            kv_group: self.number(),
            kv_heads: self.number(),
            head_range: self.number()..self.number(),
            adapter: self.optional().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()),
            tenant_secret: self.optional().map(|secret| TenantSecret(secret.to_vec())),
        };
        assert!(self.0.is_empty(), "bytes left over");
        space
    }
}

#[test]
fn changing_any_one_field_changes_the_root() {
    let base = || complete().tenant_secret([1; 16]).adapter("lora");
    let spaces = [
        base(),
        KeySpaceBuilder { model: "model2".into(), ..base() },
        base().revision("r2"),
        base().fingerprint("r1"),
        base().quantisation("Q4_1"),
        base().dtype("float16"),
        base().layout("vllm:NHD"),
        base().block_tokens(32),
        base().layers(5).layer_range(0..4),
        base().layer_range(0..3),
        base().layer_range(1..4),
        base().kv_group(1),
        base().kv_heads(5).head_range(0..4),
        base().head_range(0..3),
        base().head_range(1..4),
        base().adapter("lora2"),
        KeySpaceBuilder { adapter: None, ..base() },
        base().tenant_secret([2; 16]),
        base().tenant_secret([1; 17]),
        KeySpaceBuilder { tenant_secret: None, ..base() },
    ];
    let roots: Vec<_> = spaces.map(|builder| builder.build().unwrap().root()).into();
    for (i, root) in roots.iter().enumerate() {
        for (j, other) in roots.iter().enumerate() {
            assert_eq!(root.as_bytes() == other.as_bytes(), i == j, "key spaces {i} and {j}");
        }
    }
}

#[test]
fn defaults_are_the_whole_model() {
    let space = complete().build().unwrap();
    assert_eq!((space.layer_range(), space.head_range()), (0..4, 0..4));
    assert_eq!(
        space,
        complete().layer_range(0..4).head_range(0..4).kv_group(0).quantisation("").build().unwrap()
    );
}

#[test]
fn what_is_missing_is_named() {
    let without = |change: fn(&mut KeySpaceBuilder)| {
        let mut builder = complete();
        change(&mut builder);
        builder.build().unwrap_err()
    };
    let missing = |field| KeySpaceError::Missing { field };
    assert_eq!(without(|b| b.model.clear()), missing("model"));
    assert_eq!(without(|b| b.weights = None), missing("revision or fingerprint"));
    assert_eq!(
        without(|b| b.weights = Some(Weights::Revision(String::new()))),
        missing("revision or fingerprint")
    );
    assert_eq!(without(|b| b.dtype.clear()), missing("dtype"));
    assert_eq!(without(|b| b.layout.clear()), missing("layout"));
    assert_eq!(without(|b| b.block_tokens = 0), missing("block_tokens"));
    assert_eq!(without(|b| b.layers = 0), missing("layers"));
    assert_eq!(without(|b| b.kv_heads = 0), missing("kv_heads"));
    assert_eq!(without(|b| b.adapter = Some(String::new())), missing("adapter"));
}

#[test]
fn ranges_lie_within_the_model_and_hold_something() {
    for (start, end) in [(0, 0), (2, 2), (3, 1), (0, 5), (4, 5), (0, u32::MAX)] {
        let range = start..end;
        let wrong = |field| Err(KeySpaceError::OutOfRange { field, range: start..end, limit: 4 });
        assert_eq!(complete().head_range(range.clone()).build(), wrong("head_range"));
        assert_eq!(complete().layer_range(range).build(), wrong("layer_range"));
    }
    assert!(complete().head_range(3..4).layer_range(0..1).build().is_ok());
}

#[test]
fn texts_and_secrets_have_limits() {
    let too_long = "x".repeat(MAX_FIELD_BYTES + 1);
    let wrong = |field| Err(KeySpaceError::TooLong { field, length_bytes: MAX_FIELD_BYTES + 1 });
    assert_eq!(complete().layout(&too_long).build(), wrong("layout"));
    assert_eq!(complete().quantisation(&too_long).build(), wrong("quantisation"));
    assert_eq!(complete().tenant_secret(too_long.clone()).build(), wrong("tenant_secret"));
    assert!(complete().layout(&too_long[1..]).tenant_secret(&too_long.as_bytes()[1..]).build().is_ok());
    let weak = KeySpaceError::WeakSecret { length_bytes: MIN_SECRET_BYTES - 1 };
    assert_eq!(complete().tenant_secret([0; MIN_SECRET_BYTES - 1]).build(), Err(weak));
    assert!(complete().tenant_secret([0; MIN_SECRET_BYTES]).build().is_ok());
}

#[test]
fn as_the_crates_error_it_is_an_invalid_argument_with_the_same_text() {
    let error = complete().block_tokens(0).build().unwrap_err();
    let general = crate::Error::from(error.clone());
    assert_eq!((general.kind(), general.to_string()), (crate::ErrorKind::InvalidArgument, error.to_string()));
}

#[test]
fn the_secret_is_in_no_output() {
    let builder = complete().tenant_secret("correct horse battery staple");
    let space = builder.clone().build().unwrap();
    let weak = complete().tenant_secret("correct horse").build().unwrap_err();
    let shown = format!("{builder:?} {space:?} {space:#?} {:?} {weak} {weak:?}", space.root());
    assert!(shown.contains("<secret>"));
    let as_numbers = format!("{:?}", b"correct horse");
    assert!(!shown.contains("horse") && !shown.contains(as_numbers.trim_matches(['[', ']'])), "{shown}");
}

/// Short texts over few characters, so that equal and neighbouring fields come up often.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[ab\u{0}ä]{1,3}", any::<String>().prop_filter("empty", |text| !text.is_empty())]
}

prop_compose! {
    fn any_space()(
        (model, weights, revision, quantisation, dtype, layout) in
            (texts(), texts(), any::<bool>(), "[ab]{0,2}", texts(), texts()),
        (block_tokens, layers, kv_group, kv_heads) in (1u32.., 1u32..5, any::<u32>(), 1u32..5),
        (adapter, secret) in (option::of(texts()), option::of(proptest::collection::vec(any::<u8>(), 16..20))),
    ) -> KeySpace {
        let mut builder = KeySpace::builder(model).quantisation(quantisation).dtype(dtype).layout(layout);
        builder = builder.block_tokens(block_tokens).layers(layers).kv_group(kv_group).kv_heads(kv_heads);
        builder = if revision { builder.revision(weights) } else { builder.fingerprint(weights) };
        builder.adapter = adapter;
        builder.tenant_secret = secret.map(TenantSecret);
        builder.build().unwrap()
    }
}

proptest! {
    #[test]
    fn the_encoding_reads_back_as_the_same_key_space(space in any_space()) {
        prop_assert_eq!(Decoder(&space.encode()).key_space(), space);
    }

    #[test]
    fn two_splits_of_one_text_never_encode_alike(text in "[ab]{2,12}", cuts in (1usize.., 1usize..)) {
        let (a, b) = (1 + cuts.0 % (text.len() - 1), 1 + cuts.1 % (text.len() - 1));
        let split = |cut: usize| {
            let mut builder = complete().dtype(&text[..cut]);
            builder = builder.layout(&text[cut..]);
            builder.build().unwrap().encode()
        };
        prop_assert_eq!(split(a) == split(b), a == b);
    }
}
