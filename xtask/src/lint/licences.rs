//! Licences of every dependency, of every target and feature, against the list that Cascade may be shipped with.

use spdx::{Expression, LicenseReq, ParseMode};

use crate::lint::Violation;
use crate::workspace::{Metadata, Package};

/// Permissive licences, each met in a dependency or the twin of one. A new one is added here by name, on purpose.
const ALLOWED: [&str; 11] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "Unicode-3.0",
];

pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    metadata.packages.iter().filter_map(check_package).collect()
}

fn check_package(package: &Package) -> Option<Violation> {
    let place = format!("{} {}", package.name, package.version);
    match package.license.as_deref() {
        None => Some(Violation::new(place, "names no licence")),
        Some(text) => match Expression::parse_mode(text, ParseMode::LAX) {
            Err(error) => {
                Some(Violation::new(place, format!("licence `{text}` cannot be read: {}", error.reason)))
            }
            Ok(expression) if expression.evaluate(is_allowed) => None,
            Ok(_) => Some(Violation::new(place, format!("licence `{text}` is not on the list"))),
        },
    }
}

/// An exception (`WITH ...`) only adds rights, so the licence alone decides.
fn is_allowed(requirement: &LicenseReq) -> bool {
    requirement.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allowed(license: Option<&str>) -> bool {
        let package = json!({
            "id": "x", "name": "x", "version": "1.0.0", "license": license, "features": {},
            "manifest_path": "/x/Cargo.toml", "dependencies": [],
        });
        check_package(&serde_json::from_value(package).unwrap()).is_none()
    }

    #[test]
    fn planted_licences_are_refused() {
        for license in [Some("GPL-3.0-or-later"), Some("MIT AND AGPL-3.0-only"), Some("no licence"), None] {
            assert!(!allowed(license), "{license:?}");
        }
    }

    #[test]
    fn permissive_licences_and_choices_pass() {
        for license in
            ["MIT", "MIT/Apache-2.0", "Apache-2.0 WITH LLVM-exception OR MIT", "GPL-2.0-only OR Zlib"]
        {
            assert!(allowed(Some(license)), "{license}");
        }
    }
}
