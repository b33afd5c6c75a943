//! `cascade-core` does no I/O: its sources name none of the modules of std that reach the system.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::lint::Violation;
use crate::workspace::TextFile;

const IO_MODULES: [&str; 3] = ["fs", "net", "os"];

pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    files
        .iter()
        .filter(|f| f.path.starts_with("cascade-core/src/") && f.path.ends_with(".rs"))
        .flat_map(check_file)
        .collect()
}

fn check_file(file: &TextFile) -> Vec<Violation> {
    let mut uses = Uses::default();
    // Whatever cannot be parsed is reported by the source rules.
    if let Ok(parsed) = syn::parse_file(&file.text) {
        uses.visit_file(&parsed);
    }
    let violation = |(line, module): (usize, String)| {
        Violation::new(
            format!("{}:{line}", file.path),
            format!("cascade-core does no I/O, so `std::{module}` has no place in it"),
        )
    };
    uses.found.into_iter().map(violation).collect()
}

#[derive(Default)]
struct Uses {
    found: Vec<(usize, String)>,
}

impl Uses {
    fn module(&mut self, name: &syn::Ident) {
        if IO_MODULES.iter().any(|module| name == module) {
            self.found.push((name.span().start().line, name.to_string()));
        }
    }

    /// The modules that stand directly below `std` in a `use`.
    fn below_std(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.module(&path.ident),
            syn::UseTree::Name(name) => self.module(&name.ident),
            syn::UseTree::Rename(name) => self.module(&name.ident),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.below_std(tree)),
            syn::UseTree::Glob(_) => self.found.push((tree.span().start().line, "*".into())),
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_use_path(&mut self, path: &'ast syn::UsePath) {
        if path.ident == "std" {
            self.below_std(&path.tree);
        }
        visit::visit_use_path(self, path);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "std")
            && let Some(second) = segments.next()
        {
            self.module(&second.ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item.attrs.iter().any(super::source::is_cfg_test) {
            visit::visit_item_mod(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        check(&[TextFile { path: path.into(), text: text.into() }]).into_iter().map(|v| v.place).collect()
    }

    #[test]
    fn planted_io_in_core_is_found() {
        for text in [
            "\nuse std::fs;",
            "\nuse std::fs::File;",
            "\nuse std::{fmt, net::TcpStream};",
            "\nfn f(_: std::os::fd::RawFd) {}",
            "\nuse std::*;",
        ] {
            assert_eq!(places("cascade-core/src/x.rs", text), ["cascade-core/src/x.rs:2"], "{text}");
            assert!(places("cascade-shm/src/x.rs", text).is_empty());
        }
    }

    #[test]
    fn the_rest_of_std_and_tests_pass() {
        for text in [
            "use std::{fmt, sync::Arc}; use std::process; fn f() { std::mem::drop(1) }",
            "#[cfg(test)] mod tests { use std::fs; }",
            "use crate::net; fn f() { fs::x() }",
        ] {
            assert!(places("cascade-core/src/x.rs", text).is_empty(), "{text}");
        }
    }
}
