//! `tollgate keys`.

use super::args::{KeysArgs, KeysCommand};
use super::env;
use crate::auth::{KeyHash, KeyPepper, generate_api_key};
use crate::base::{Role, Secret};

pub(super) fn run(args: &KeysArgs) -> Result<bool, String> {
    let KeysCommand::New { roles, principal, note, pepper_env } = &args.command;
    let roles =
        roles.iter().map(|r| r.parse::<Role>().map_err(|e| e.to_string())).collect::<Result<Vec<_>, _>>()?;
    let pepper = match pepper_env {
        None => None,
        Some(name) => {
            let text = env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
            let pepper = KeyPepper::new(&Secret::new(text.into_bytes()));
            Some(pepper.ok_or_else(|| format!("the pepper in {name} needs at least 16 bytes"))?)
        }
    };
    let key = generate_api_key(&mut rand::rng());
    let hash = KeyHash::of(key.text.expose().as_bytes(), pepper.as_ref());
    let mut record = serde_json::json!({
        "id": key.id,
        "hash": hash.to_string(),
        "roles": roles.iter().map(|r| r.as_str()).collect::<Vec<_>>(),
    });
    if let Some(principal) = principal {
        record["principal"] = principal.as_str().into();
    }
    if let Some(note) = note {
        record["note"] = note.as_str().into();
    }
    eprintln!("The key, shown this once; give it to whoever uses it:");
    println!("{}", key.text.expose());
    eprintln!("The record, one line of the file that `identity.api_keys.file` names:");
    println!("{record}");
    Ok(true)
}
