//! Fuel: what bounds the time of an evaluation.
//!
//! The check (see `check`) rewrites a tree so that costs are paid before they arise:
//!
//! - every operand of an operator or function whose cost grows with its operands is wrapped in [`CHARGE`], which pays
//!   for the operand's size and hands it on;
//! - the range of a comprehension is wrapped in [`ITERATE`], which pays for copying every element and, per element, for
//!   every node of the body;
//! - `matches` becomes [`MATCH`] with a pattern compiled in advance, and pays for the text times the pattern.
//!
//! Everything else costs at most a constant per node, and the nodes outside of comprehensions are bounded by the length
//! of the source. Fuel that ran out stays out until the next [`refill`]: an error that the language absorbs (`x || true`)
//! cannot make more work than was already paid for.
//!
//! The fuel is a thread's: an evaluation never leaves its thread.

use std::any::Any;
use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelBytes, CelInt, CelList, CelMap, CelString, DYN_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};

use super::program::Pattern;

/// Pays for its argument and returns it.
pub(super) const CHARGE: &str = "@charge";
/// Pays for going over its first argument with a body of as many nodes as the second says.
pub(super) const ITERATE: &str = "@iterate";
/// Searches its first argument for its second, a pattern.
pub(super) const MATCH: &str = "@match";

/// What one evaluation may use. A unit is worth 50 to 100 ns at worst.
pub(super) const MAX_FUEL: i64 = 40_000;

/// What an element of a container costs: it may be copied, and dropped again.
const ELEMENT: i64 = 2;

/// What an iteration costs besides its body.
const ITERATION: i64 = 4;

thread_local! {
    static FUEL: Cell<i64> = const { Cell::new(0) };
}

/// Starts an evaluation.
pub(super) fn refill() {
    FUEL.set(MAX_FUEL);
}

/// Whether the evaluation ran out.
pub(super) fn is_empty() -> bool {
    FUEL.get() < 0
}

/// The functions that expressions may use, and those they are rewritten to.
pub(super) fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        env.add_overload(CHARGE, CHARGE, vec![DYN_TYPE], charge)
            .and_then(|()| env.add_overload(ITERATE, ITERATE, vec![DYN_TYPE, DYN_TYPE], iterate))
            .and_then(|()| env.add_overload(MATCH, MATCH, vec![DYN_TYPE, DYN_TYPE], search))
            .expect("no name with @ is declared yet: none can be written in CEL");
        Arc::new(env)
    });
    ENVIRONMENT.clone()
}

fn spend(units: i64) -> Result<(), ExecutionError> {
    let left = FUEL.get();
    // Once out, out: a later, cheaper operation must not succeed again.
    let left = if left < 0 { left } else { left.saturating_sub(units) };
    FUEL.set(left);
    match left < 0 {
        true => Err(ExecutionError::function_error("fuel", "exhausted")),
        false => Ok(()),
    }
}

fn charge<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    pay_for(value.as_ref())?;
    Ok(value)
}

fn iterate<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (Some(nodes), Some(range)) = (args.pop(), args.pop()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let per_element = nodes.downcast_ref::<CelInt>().map_or(i64::MAX, |n| *n.inner());
    let elements = range.as_sizer().map_or(0, |s| *s.size().inner());
    spend(elements.saturating_mul(per_element.saturating_add(ITERATION)))?;
    pay_for(range.as_ref())?;
    Ok(range)
}

fn search<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = args.as_slice() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let (Some(text), Some(pattern)) =
        (text.downcast_ref::<CelString>(), pattern.downcast_ref::<PatternVal>())
    else {
        let types = args.iter().map(|a| a.get_type().name().to_owned()).collect();
        return Err(ExecutionError::no_such_member_overload("matches", types));
    };
    let steps = text.inner().len() as i64 / 16 + 1;
    spend(steps.saturating_mul(i64::from(pattern.0.weight)))?;
    Ok(CowVal::owned(CelBool::from(pattern.0.regex.is_match(text.inner()))))
}

/// Pays for a value and everything in it, until the fuel is gone.
fn pay_for(value: &dyn Val) -> Result<(), ExecutionError> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        spend(1 + text.inner().len() as i64 / 64)
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        spend(1 + ELEMENT * list.inner().len() as i64)?;
        list.inner().iter().try_for_each(|item| pay_for(item.as_ref()))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        spend(1 + ELEMENT * map.inner().len() as i64)?;
        map.inner().iter().try_for_each(|(key, item)| {
            pay_for(key.inner())?;
            pay_for(item.as_ref())
        })
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        spend(1 + bytes.inner().len() as i64 / 64)
    } else {
        spend(1)
    }
}

/// A compiled pattern as a value, so that a tree can refer to it.
#[derive(Clone, Debug)]
pub(super) struct PatternVal(pub(super) Pattern);

static PATTERN_TYPE: Type = Type::new_unspecified_type("@pattern");

impl Val for PatternVal {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for PatternVal {}
