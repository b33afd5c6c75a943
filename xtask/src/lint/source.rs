//! Rules over Rust sources: `unsafe` only in `raw.rs`, short files, short functions.

use std::ops::RangeInclusive;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::lint::Violation;
use crate::workspace::TextFile;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 80;

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    files.iter().filter(|file| file.path.ends_with(".rs")).flat_map(check_file).collect()
}

fn check_file(file: &TextFile) -> Vec<Violation> {
    let parsed = match syn::parse_file(&file.text) {
        Ok(parsed) => parsed,
        Err(error) => return vec![Violation::new(&file.path, format!("cannot be parsed: {error}"))],
    };
    let mut found = Vec::new();
    let lines = file.text.lines().count();
    if lines > MAX_FILE_LINES {
        found.push(Violation::new(
            &file.path,
            format!("has {lines} lines, the most is {MAX_FILE_LINES}: split it"),
        ));
    }
    let mut shape = Shape::default();
    shape.visit_file(&parsed);
    found.extend(shape.long_functions.into_iter().map(|(line, name, lines)| {
        let rule = format!("`{name}` has {lines} lines, the most is {MAX_FUNCTION_LINES}: split it");
        Violation::new(format!("{}:{line}", file.path), rule)
    }));
    if !may_hold_unsafe(&file.path) {
        let lines =
            unsafe_lines(&file.text).into_iter().filter(|line| !shape.tests.iter().any(|t| t.contains(line)));
        found.extend(lines.map(|line| {
            Violation::new(
                format!("{}:{line}", file.path),
                "`unsafe` outside raw.rs: move it behind a checked function there",
            )
        }));
    }
    found
}

/// `raw.rs`, the modules of a folder `raw`, and files of tests and benches; clippy asks for a SAFETY comment in all of them.
fn may_hold_unsafe(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    matches!(parts.next(), Some("raw.rs" | "tests.rs"))
        || parts.any(|folder| matches!(folder, "raw" | "tests" | "benches"))
}

/// Lines of every `unsafe` token, those inside macros and attributes too.
fn unsafe_lines(text: &str) -> Vec<usize> {
    fn walk(tokens: TokenStream, lines: &mut Vec<usize>) {
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
                TokenTree::Group(group) => walk(group.stream(), lines),
                _ => {}
            }
        }
    }
    let mut lines = Vec::new();
    // A file that syn parsed is a valid token stream too.
    walk(text.parse().unwrap_or_default(), &mut lines);
    lines
}

/// What the rules need to know of a file's syntax.
#[derive(Default)]
struct Shape {
    long_functions: Vec<(usize, String, usize)>,
    /// Lines of inline `#[cfg(test)]` modules.
    tests: Vec<RangeInclusive<usize>>,
}

impl Shape {
    fn function(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
        let (first, last) = (name.span().start().line, whole.end().line);
        let lines = last - first + 1;
        if lines > MAX_FUNCTION_LINES {
            self.long_functions.push((first, name.to_string(), lines));
        }
    }
}

impl<'ast> Visit<'ast> for Shape {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig.ident, item.span());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.attrs.iter().any(is_cfg_test) {
            self.tests.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item_mod(self, item);
    }
}

/// `#[cfg(test)]` and `#[cfg(all(test, ...))]`.
pub(super) fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    attribute.path().is_ident("cfg") && (condition == "test" || condition.starts_with("all(test,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        check(&[TextFile { path: path.into(), text: text.into() }]).into_iter().map(|v| v.place).collect()
    }

    #[test]
    fn planted_unsafe_is_found_in_blocks_macros_impls_and_attributes() {
        for text in [
            "fn f() {\n unsafe { g() } }",
            "macro_rules! m { () => {\n unsafe { g() } } }",
            "fn f() { m!(\n unsafe { g() }) }",
            "struct S;\nunsafe impl Send for S {}",
            "use x::y;\n#[unsafe(no_mangle)] extern \"C\" fn f() {}",
        ] {
            assert_eq!(places("a/src/tier.rs", text), ["a/src/tier.rs:2"], "{text}");
        }
    }

    #[test]
    fn unsafe_in_its_places_passes() {
        let text = "fn f() { unsafe { g() } }";
        for path in [
            "a/src/raw.rs",
            "a/src/raw/map.rs",
            "a/src/fork/tests.rs",
            "a/tests/kill.rs",
            "a/benches/copy.rs",
        ] {
            assert!(places(path, text).is_empty(), "{path}");
        }
        assert!(
            places("a/src/tier.rs", "#[cfg(test)]\nmod tests {\n fn f() { unsafe { g() } }\n}").is_empty()
        );
        assert!(places("a/src/tier.rs", "// unsafe\nconst S: &str = \"unsafe\";").is_empty());
        assert_eq!(places("a/src/draw.rs", text).len(), 1);
        assert_eq!(
            places("a/src/tier.rs", "#[cfg(not(test))]\nmod m { fn f() { unsafe { g() } } }").len(),
            1
        );
    }

    #[test]
    fn planted_long_functions_and_files_are_found() {
        let body = "    g();\n".repeat(MAX_FUNCTION_LINES - 2);
        assert!(places("a.rs", &format!("fn f() {{\n{body}}}\n")).is_empty());
        assert_eq!(places("a.rs", &format!("\nfn f() {{\n{body}    g();\n}}\n")), ["a.rs:2"]);
        assert_eq!(places("a.rs", &format!("impl S {{\nfn f() {{\n{body}    g();\n}}\n}}\n")), ["a.rs:2"]);
        assert_eq!(places("a.rs", &format!("trait S {{\nfn f() {{\n{body}    g();\n}}\n}}\n")), ["a.rs:2"]);
        assert_eq!(places("a.rs", &"// line\n".repeat(MAX_FILE_LINES + 1)), ["a.rs"]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_found() {
        assert_eq!(places("a.rs", "fn ("), ["a.rs"]);
    }
}
