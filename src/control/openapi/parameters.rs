//! Which parameters of the query an operation has: those of its description, and no others.

use std::sync::Arc;

use axum::extract::Query;
use axum::http::Uri;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::{ObjectBuilder, RefOr, Required, Type};

use super::methods_mut;
use crate::control::extract::MAX_REASON;
use crate::control::permission::{Operation, Trail};
use crate::control::problem::{FieldError, Problem};

/// Why something is done; the gate reads it, for whatever is always recorded.
const REASON: &str = "reason";
/// Longest name that an answer repeats, in characters.
const MAX_SHOWN: usize = 60;

/// The names of an operation's parameters of the query.
#[derive(Clone, Debug)]
pub(in crate::control) struct Parameters(Arc<[String]>);

/// The parameters of the only operation, to which those are added that every operation of its kind has.
pub(in crate::control) fn parameters(paths: &mut Paths, operation: &Operation) -> Parameters {
    let mut names = Vec::new();
    for (_, described) in paths.paths.values_mut().flat_map(methods_mut) {
        let all = described.parameters.get_or_insert_default();
        let named = all.iter().filter_map(in_query).any(|name| name == REASON);
        if operation.trail == Trail::Always && !named {
            let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_REASON));
            let why = "Why, at most 500 characters; the header `X-Tollgate-Reason` does the same.";
            let reason = ParameterBuilder::new()
                .name(REASON)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(why))
                .schema(Some(text));
            all.push(RefOr::T(reason.build()));
        }
        names.extend(all.iter().filter_map(in_query).map(ToOwned::to_owned));
        if all.is_empty() {
            described.parameters = None;
        }
    }
    Parameters(names.into())
}

/// The name of a parameter of the query. Handlers describe theirs where they stand, never by reference.
fn in_query(parameter: &RefOr<Parameter>) -> Option<&str> {
    match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(&parameter.name),
        _ => None,
    }
}

impl Parameters {
    /// Whether the query of an address has none but these, each once.
    ///
    /// # Errors
    ///
    /// 400 that names the one that there is not, and those that there are.
    pub(in crate::control) fn check(&self, uri: &Uri) -> Result<(), Problem> {
        let no_text = |_| Problem::bad_request("the query cannot be read");
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(no_text)?;
        for (at, (name, _)) in given.iter().enumerate() {
            let wrong = if !self.0.contains(name) {
                "there is no such parameter here; nothing was done"
            } else if given[..at].iter().any(|(earlier, _)| earlier == name) {
                "it is there twice"
            } else {
                continue;
            };
            let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
            let error = FieldError::new(format!("?{shown}"), wrong).expecting(self.expected());
            return Err(Problem::parameter(&shown, wrong)
                .replacing_errors([error])
                .detailed(format!("the parameter `{shown}`: {wrong}")));
        }
        Ok(())
    }

    fn expected(&self) -> String {
        match &*self.0 {
            [] => "no parameters".to_owned(),
            names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        }
    }
}
