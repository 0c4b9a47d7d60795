//! Configuration files on their way to the API.

use std::io::Read as _;
use std::path::Path;

use super::client::Failure;
use crate::base::PLATFORM_SCOPE;
use crate::config::{self, Diagnostics};

/// A document out of a file.
#[derive(Debug)]
pub(super) struct Part {
    /// `@platform` or a tenant.
    pub(super) scope: String,
    /// What is sent.
    pub(super) bytes: Vec<u8>,
    /// Whether these are the bytes of the file: then places in them are places there.
    pub(super) verbatim: bool,
    /// Where the document is in the file, as a JSON pointer.
    pub(super) base: String,
}

/// Where in a file findings about its documents are.
#[derive(Default)]
pub(super) struct InFile(Option<config::Places>);

impl InFile {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(config::Places::of(bytes))
    }

    /// Of what a pointer into the document at `base` leads to.
    pub(super) fn below<'a>(&'a self, base: &'a str) -> impl Fn(&str) -> Option<(u32, u32)> + 'a {
        move |pointer| self.0.as_ref()?.at(&format!("{base}{pointer}"))
    }

    /// The same of several documents that were sent together: `/documents/<which>/document` and what is in it.
    pub(super) fn among<'a>(&'a self, bases: &'a [String]) -> impl Fn(&str) -> Option<(u32, u32)> + 'a {
        move |pointer| {
            let (which, rest) = pointer.strip_prefix("/documents/")?.split_once("/document")?;
            let base = bases.get(which.parse::<usize>().ok()?)?;
            self.0.as_ref()?.at(&format!("{base}{rest}"))
        }
    }
}

/// The bytes of a file, or of standard input if it is `-`.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let limit = config::MAX_DOCUMENT as u64;
    let failed = |e: std::io::Error| Failure::Other(format!("{}: {e}", file.display()));
    let mut bytes = Vec::new();
    let done = if file == Path::new("-") {
        std::io::stdin().take(limit + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes)
    };
    done.map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::Other(format!("{}: larger than {limit} bytes", file.display())));
    }
    Ok(bytes)
}

/// A whole configuration, taken apart: the platform's document if the file speaks of tenants, then those of tenants.
pub(super) fn split(bytes: &[u8], file: &Path) -> Result<Vec<Part>, Failure> {
    let wrong = |findings: Diagnostics| Failure::Findings(findings.to_string());
    let name = file.display().to_string();
    let documents = config::split_file(bytes, &name).map_err(wrong)?;
    let whole = config::canonical(bytes).map_err(wrong)?;
    let names = config::edit::list(&whole, config::edit::Kind::Tenant);
    let part = |scope: &str, document: &config::Canonical| {
        let verbatim = *document == whole;
        let bytes = if verbatim { bytes.to_vec() } else { document.as_bytes().to_vec() };
        // The platform's list of tenants is the file's, and so are the sections of `default`.
        let index = names.iter().position(|(name, _)| name == scope);
        let base = index.map(|index| format!("/tenants/{index}/document")).unwrap_or_default();
        Part { scope: scope.to_owned(), bytes, verbatim, base }
    };
    let mut parts = Vec::new();
    if documents.platform != config::Canonical::empty() {
        parts.push(part(PLATFORM_SCOPE, &documents.platform));
    }
    parts.extend(documents.tenants.iter().map(|(tenant, document)| part(tenant.as_str(), document)));
    if parts.is_empty() {
        return Err(Failure::Other(format!("{name} has no document: no servers, routes or tenants")));
    }
    Ok(parts)
}

/// The document of one tenant in a whole configuration.
pub(super) fn own(bytes: &[u8], file: &Path, tenant: &str) -> Result<Part, Failure> {
    let found = split(bytes, file)?.into_iter().find(|part| part.scope == tenant);
    found.ok_or_else(|| Failure::Other(format!("{} has no document of the tenant {tenant}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "version: 1\nroutes:\n  # kept\n  - { name: r, path: /r, server: s }\n";

    #[test]
    fn a_file_that_is_one_document_is_sent_as_it_is() {
        let file = Path::new("a.yaml");
        let parts = split(OWN.as_bytes(), file).unwrap();
        assert_eq!(parts.len(), 1);
        assert!(parts[0].verbatim && parts[0].bytes == OWN.as_bytes());
        let several = format!("{OWN}tenants: [{{ name: acme, document: {{ servers: [] }} }}]\n");
        let parts = split(several.as_bytes(), file).unwrap();
        let scopes: Vec<&str> = parts.iter().map(|part| part.scope.as_str()).collect();
        assert_eq!(scopes, ["@platform", "acme", "default"]);
        assert!(parts.iter().all(|part| !part.verbatim));
        assert_eq!(own(several.as_bytes(), file, "acme").unwrap().scope, "acme");
        let none = own(OWN.as_bytes(), file, "acme").unwrap_err().into_text();
        assert_eq!(none, "a.yaml has no document of the tenant acme");
    }

    #[test]
    fn findings_about_a_document_have_their_places_in_the_file() {
        let text = "listeners: { mcp: { address: 127.0.0.1:0 } }\nversion: 1\n\
                    tenants:\n  - name: acme\n    document:\n      servers: [{ name: s }]\n\
                    routes:\n  - { name: r, path: /r, server: s }\n";
        let parts = split(text.as_bytes(), Path::new("a.yaml")).unwrap();
        let (bases, places): (Vec<String>, InFile) =
            (parts.iter().map(|part| part.base.clone()).collect(), InFile::of(text.as_bytes()));
        assert_eq!(bases, ["", "/tenants/0/document", ""]);
        let among = places.among(&bases);
        assert_eq!(among("/documents/1/document/servers/0/name"), Some((6, 25)));
        assert_eq!(among("/documents/2/document/routes/0/server"), Some((8, 34)));
        assert_eq!(among("/documents/9/document/routes"), None);
        assert_eq!(among("/elsewhere"), None);
        assert_eq!(places.below("")("/routes/0/name"), Some((8, 13)));
    }

    #[test]
    fn a_file_of_another_version_says_so() {
        for text in ["version: 2\n", "version: two\nservers: []\n"] {
            let told = split(text.as_bytes(), Path::new("a.yaml")).unwrap_err().into_text();
            assert!(told.contains("a version that this program does not read"), "{told}");
            assert!(told.contains("a.yaml:1:10") && told.contains("`version: 1`"), "{told}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_told_with_the_name_of_the_file() {
        let told = split(b"routes: [\n", Path::new("conf/a.yaml")).unwrap_err();
        let Failure::Findings(text) = &told else { panic!("{told:?}") };
        assert!(text.starts_with("error[syntax]") && text.contains("conf/a.yaml:"), "{text}");
    }
}
