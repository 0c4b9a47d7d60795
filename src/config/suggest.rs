//! The nearest valid word to one that is not.

/// The most likely intended word: at most one edit for short words, one in three characters for longer ones.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_ascii_lowercase().replace('-', "_");
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            let plain = candidate.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&word, &plain), candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Words in back-ticks, separated by commas; the first 24.
pub(crate) fn list(words: &[&str]) -> String {
    let mut out: Vec<String> = words.iter().take(24).map(|word| format!("`{word}`")).collect();
    if words.len() > 24 {
        out.push("…".to_owned());
    }
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_within_a_third_of_the_letters() {
        let known = ["balance", "breaker", "health"];
        assert_eq!(nearest("balence", known), Some("balance"));
        assert_eq!(nearest("blaance", known), Some("balance"));
        assert_eq!(nearest("Health", known), Some("health"));
        assert_eq!(nearest("peak-ewma", ["peak_ewma"]), Some("peak_ewma"));
        assert_eq!(nearest("weather", known), None);
        assert_eq!(nearest("", known), None);
    }
}
