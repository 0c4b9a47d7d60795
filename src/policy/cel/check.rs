//! What an expression may contain, and the rewriting that makes its cost bounded.

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators,
};
use regex::{Regex, RegexBuilder};

use super::meter::{CHARGE, ITERATE, MATCH};
use super::program::Pattern;
use super::scope::{PATTERN, PRINCIPAL, PRINCIPAL_FIELDS, VARIABLES};
use crate::policy::facts::{ItemKind, ItemKinds};

/// How deep the tree may be: evaluation recurses.
const MAX_DEPTH: usize = 40;

/// How many comprehensions may lie in one another's bodies.
const MAX_COMPREHENSIONS: usize = 2;

/// The most elements of a list or map literal.
const MAX_LITERAL_ELEMENTS: usize = 128;

/// The most `matches` of one expression.
const MAX_PATTERNS: usize = 16;

/// Sizes a compiled pattern may have; the first that is enough tells what searching costs.
const PATTERN_SIZES: [usize; 6] = [2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// Functions by name, whether they are called on something, and how many arguments they take.
const FUNCTIONS: [(&str, bool, usize); 13] = [
    ("bool", false, 1),
    ("contains", true, 1),
    ("double", false, 1),
    ("endsWith", true, 1),
    ("int", false, 1),
    ("matches", false, 2),
    ("matches", true, 1),
    ("size", false, 1),
    ("size", true, 0),
    ("startsWith", true, 1),
    ("string", false, 1),
    ("type", false, 1),
    ("uint", false, 1),
];

/// Types, for `type(x) == string`.
const TYPES: [&str; 9] = ["bool", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// A tree that is safe to evaluate, and what is known about it.
pub(super) struct Checked {
    pub(super) expression: IdedExpr,
    pub(super) patterns: Vec<Pattern>,
    pub(super) items: ItemKinds,
    pub(super) reads_arguments: bool,
    pub(super) reads_claims: bool,
    pub(super) reads_anything: bool,
    pub(super) unguarded: Vec<String>,
}

/// What is wrong, and with which node.
pub(super) struct Refused {
    pub(super) node: u64,
    pub(super) message: String,
}

/// Checks and rewrites a tree as it comes from the parser.
pub(super) fn check(tree: IdedExpr) -> Result<Checked, Refused> {
    let mut checker = Checker::default();
    let (expression, _) = checker.rewrite(tree, 0)?;
    let tested = checker.tested;
    let mut unguarded: Vec<String> = checker.read.into_iter().filter(|path| !tested.contains(path)).collect();
    unguarded.sort_unstable();
    unguarded.dedup();
    Ok(Checked {
        expression,
        patterns: checker.patterns,
        items: checker.items,
        reads_arguments: checker.reads_arguments,
        reads_claims: checker.reads_claims,
        reads_anything: checker.reads_anything,
        unguarded,
    })
}

#[derive(Default)]
struct Checker {
    /// The loop variables in scope, innermost last.
    bound: Vec<String>,
    comprehensions: usize,
    patterns: Vec<Pattern>,
    items: ItemKinds,
    reads_arguments: bool,
    reads_claims: bool,
    reads_anything: bool,
    /// Paths whose presence is tested somewhere.
    tested: Vec<String>,
    /// Paths that are read.
    read: Vec<String>,
}

type Rewritten = Result<(IdedExpr, i64), Refused>;

impl Checker {
    /// Returns the rewritten node and how many nodes it has.
    fn rewrite(&mut self, node: IdedExpr, depth: usize) -> Rewritten {
        let IdedExpr { id, expr } = node;
        if depth > MAX_DEPTH {
            return refuse(id, format!("operations nest deeper than {MAX_DEPTH}"));
        }
        let (expr, nodes) = match expr {
            Expr::Call(call) => self.call(id, call, depth)?,
            Expr::Comprehension(comprehension) => self.comprehension(id, *comprehension, depth)?,
            Expr::Ident(name) => {
                self.identifier(id, &name)?;
                (Expr::Ident(name), 1)
            }
            Expr::List(list) => self.list(id, list, depth)?,
            Expr::Literal(literal) => (Expr::Literal(literal), 1),
            Expr::Map(map) => self.map(id, map, depth)?,
            Expr::Select(select) => self.select(id, select, depth)?,
            Expr::Struct(_) => return refuse(id, "messages are not supported".to_owned()),
            Expr::Unspecified => return refuse(id, "incomplete expression".to_owned()),
        };
        Ok((IdedExpr { id, expr }, nodes))
    }

    fn identifier(&mut self, id: u64, name: &str) -> Result<(), Refused> {
        // Names of the interpreter's own start with @, which nobody can write.
        if name.starts_with('@') || self.bound.iter().any(|b| b == name) || TYPES.contains(&name) {
            return Ok(());
        }
        if name == PRINCIPAL {
            return refuse(id, format!("use a field of `principal`: {}", PRINCIPAL_FIELDS.join(", ")));
        }
        if !VARIABLES.contains(&name) {
            let known = VARIABLES.join(", ");
            return refuse(id, format!("undeclared `{name}`; there are {known}, and fields of principal"));
        }
        self.reads_anything = true;
        match name {
            "arguments" => self.reads_arguments = true,
            "prompt" => self.items.insert(ItemKind::Prompt),
            "resource" => self.items.insert(ItemKind::Resource),
            "tool" => self.items.insert(ItemKind::Tool),
            _ => {}
        }
        Ok(())
    }

    fn select(&mut self, id: u64, select: SelectExpr, depth: usize) -> Result<(Expr, i64), Refused> {
        if matches!(&select.operand.expr, Expr::Ident(name) if name == PRINCIPAL) {
            if !PRINCIPAL_FIELDS.contains(&select.field.as_str()) {
                let fields = PRINCIPAL_FIELDS.join(", ");
                return refuse(id, format!("`principal` has no `{}`; it has {fields}", select.field));
            }
            if select.test {
                return refuse(id, format!("`principal.{}` is always there", select.field));
            }
            self.reads_anything = true;
            self.reads_claims |= select.field == "claims";
            return Ok((Expr::Select(select), 2));
        }
        if let Some(operand) = path(&select.operand) {
            let list = if select.test { &mut self.tested } else { &mut self.read };
            list.push(format!("{operand}.{}", select.field));
        }
        let (operand, nodes) = self.rewrite(*select.operand, depth + 1)?;
        Ok((Expr::Select(SelectExpr { operand: Box::new(operand), ..select }), nodes + 1))
    }

    fn list(&mut self, id: u64, list: ListExpr, depth: usize) -> Result<(Expr, i64), Refused> {
        if list.elements.len() > MAX_LITERAL_ELEMENTS {
            return refuse(id, format!("a list of more than {MAX_LITERAL_ELEMENTS} elements"));
        }
        let mut nodes = 1;
        let mut elements = Vec::with_capacity(list.elements.len());
        for element in list.elements {
            let (element, n) = self.rewrite(element, depth + 1)?;
            nodes += n;
            elements.push(charged(element));
        }
        Ok((Expr::List(ListExpr { elements, ..list }), nodes))
    }

    fn map(&mut self, id: u64, map: MapExpr, depth: usize) -> Result<(Expr, i64), Refused> {
        if map.entries.len() > MAX_LITERAL_ELEMENTS {
            return refuse(id, format!("a map of more than {MAX_LITERAL_ELEMENTS} entries"));
        }
        let mut nodes = 1;
        let mut entries = Vec::with_capacity(map.entries.len());
        for mut entry in map.entries {
            let EntryExpr::MapEntry(mut pair) = entry.expr else {
                return refuse(entry.id, "messages are not supported".to_owned());
            };
            let (key, n) = self.rewrite(pair.key, depth + 1)?;
            let (value, m) = self.rewrite(pair.value, depth + 1)?;
            nodes += n + m;
            (pair.key, pair.value) = (charged(key), charged(value));
            entry.expr = EntryExpr::MapEntry(pair);
            entries.push(entry);
        }
        Ok((Expr::Map(MapExpr { entries }), nodes))
    }

    fn comprehension(
        &mut self,
        id: u64,
        mut it: ComprehensionExpr,
        depth: usize,
    ) -> Result<(Expr, i64), Refused> {
        if it.iter_var2.is_some() {
            return refuse(id, "comprehensions over keys and values are not supported".to_owned());
        }
        let taken = [VARIABLES.as_slice(), &TYPES, &[PRINCIPAL]].concat();
        if taken.contains(&it.iter_var.as_str()) {
            return refuse(id, format!("`{}` cannot be the name of a loop variable", it.iter_var));
        }
        let (range, range_nodes) = self.rewrite(it.iter_range, depth + 1)?;
        self.comprehensions += 1;
        if self.comprehensions > MAX_COMPREHENSIONS {
            return refuse(id, format!("comprehensions nest deeper than {MAX_COMPREHENSIONS}"));
        }
        self.bound.push(it.iter_var.clone());
        let mut body_nodes = 1;
        for part in [&mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result] {
            let (rewritten, nodes) = self.rewrite(std::mem::take(part), depth + 1)?;
            *part = rewritten;
            body_nodes += nodes;
        }
        self.bound.pop();
        self.comprehensions -= 1;
        let cost = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(body_nodes.into())) };
        it.iter_range = call(id, ITERATE, vec![range, cost]);
        Ok((Expr::Comprehension(Box::new(it)), range_nodes + body_nodes))
    }

    fn call(&mut self, id: u64, mut it: CallExpr, depth: usize) -> Result<(Expr, i64), Refused> {
        let is_matches = it.func_name == "matches";
        if is_matches {
            return self.matches(id, it, depth);
        }
        let operator = it.target.is_none() && is_operator(&it.func_name);
        let arity = (it.func_name.as_str(), it.target.is_some(), it.args.len());
        if !operator && !FUNCTIONS.contains(&arity) {
            let message = match FUNCTIONS.iter().any(|f| f.0 == it.func_name) {
                true => format!("`{}` is not called like this", it.func_name),
                false => format!("unknown function `{}`", it.func_name),
            };
            return refuse(id, message);
        }
        self.note_paths(&it);
        let pays = !operator || pays_for_operands(&it.func_name);
        // Indexing with such a literal finds its element at once, however large the container; with any other value it may
        // fail with a copy of the container.
        let plain = |index: &IdedExpr| {
            use LiteralValue::{Int, String, UInt};
            matches!(index.expr, Expr::Literal(Int(_) | UInt(_) | String(_)))
        };
        let indexes = it.func_name == operators::INDEX && it.args.last().is_some_and(plain);
        let mut nodes = 1;
        if let Some(target) = it.target.take() {
            let (target, n) = self.rewrite(*target, depth + 1)?;
            nodes += n;
            it.target = Some(Box::new(charged(target)));
        }
        let mut args = Vec::with_capacity(it.args.len());
        for arg in it.args {
            let (arg, n) = self.rewrite(arg, depth + 1)?;
            nodes += n;
            let is_path = matches!(arg.expr, Expr::Ident(_) | Expr::Select(_));
            args.push(if pays && !(indexes && is_path) { charged(arg) } else { arg });
        }
        Ok((Expr::Call(CallExpr { args, ..it }), nodes))
    }

    /// `text.matches("pattern")`: the pattern is compiled now.
    fn matches(&mut self, id: u64, it: CallExpr, depth: usize) -> Result<(Expr, i64), Refused> {
        let mut operands = it.target.map(|target| *target).into_iter().chain(it.args);
        let (Some(text), Some(pattern), None) = (operands.next(), operands.next(), operands.next()) else {
            return refuse(id, "`matches` is not called like this".to_owned());
        };
        let Expr::Literal(LiteralValue::String(pattern)) = pattern.expr else {
            return refuse(pattern.id, "the pattern of `matches` must be a literal".to_owned());
        };
        if self.patterns.len() >= MAX_PATTERNS {
            return refuse(id, format!("more than {MAX_PATTERNS} patterns"));
        }
        let Some(compiled) = compile_pattern(&pattern) else {
            return refuse(id, "the pattern of `matches` is not valid, or too large".to_owned());
        };
        let reference = format!("{PATTERN}{}", self.patterns.len());
        self.patterns.push(compiled);
        let (text, nodes) = self.rewrite(text, depth + 1)?;
        let pattern = IdedExpr { id, expr: Expr::Ident(reference) };
        Ok((call(id, MATCH, vec![charged(text), pattern]).expr, nodes + 2))
    }

    /// Remembers `x["key"]` as read and `"key" in x` as tested.
    fn note_paths(&mut self, it: &CallExpr) {
        let [left, right] = it.args.as_slice() else { return };
        let (container, key, list) = match it.func_name.as_str() {
            operators::INDEX => (left, right, &mut self.read),
            operators::IN => (right, left, &mut self.tested),
            _ => return,
        };
        if let (Some(container), Expr::Literal(LiteralValue::String(key))) = (path(container), &key.expr) {
            list.push(format!("{container}.{}", key.inner()));
        }
    }
}

fn refuse<T>(node: u64, message: String) -> Result<T, Refused> {
    Err(Refused { node, message })
}

fn call(id: u64, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

/// Wraps a node whose value may be large, so that it is paid for before it is used.
fn charged(node: IdedExpr) -> IdedExpr {
    if is_small(&node.expr) { node } else { call(node.id, CHARGE, vec![node]) }
}

/// Whether the value is bounded by what an operator configured, or was paid for when it was made.
fn is_small(expr: &Expr) -> bool {
    match expr {
        // The interpreter recognises loops that only append by their shape, which must not be broken.
        Expr::Ident(name) => {
            name.starts_with('@') || matches!(name.as_str(), "ip" | "route" | "server" | "tenant")
        }
        Expr::Select(select) => {
            select.test
                || matches!(&select.operand.expr, Expr::Ident(name) if name == PRINCIPAL)
                    && matches!(select.field.as_str(), "kind" | "issuer")
        }
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => true,
        Expr::Call(call) => {
            matches!(call.func_name.as_str(), "size" | "contains" | "startsWith" | "endsWith" | MATCH)
                || is_operator(&call.func_name)
                    && !matches!(call.func_name.as_str(), operators::ADD | operators::INDEX)
                    && call.func_name != operators::CONDITIONAL
        }
        _ => false,
    }
}

fn is_operator(name: &str) -> bool {
    matches!(
        name,
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::SUBSTRACT
            | operators::ADD
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER_EQUALS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::LESS
            | operators::NEGATE
            | operators::INDEX
            | operators::IN
            | operators::NOT_STRICTLY_FALSE
    )
}

/// Logic looks at booleans, or hands a value on; everything else looks into its operands, or copies them into an error.
fn pays_for_operands(operator: &str) -> bool {
    !matches!(
        operator,
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
    )
}

/// `arguments.a["b"]` as `arguments.a.b`; only for what may lack a key.
fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => (name == "arguments").then(|| name.clone()),
        Expr::Select(select) if !select.test => {
            if matches!(&select.operand.expr, Expr::Ident(name) if name == PRINCIPAL) {
                return (select.field == "claims").then(|| format!("{PRINCIPAL}.claims"));
            }
            Some(format!("{}.{}", path(&select.operand)?, select.field))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [container, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                Some(format!("{}.{}", path(container)?, key.inner()))
            }
            _ => None,
        },
        _ => None,
    }
}

fn compile_pattern(pattern: &str) -> Option<Pattern> {
    let build = |size: usize| -> Option<Regex> {
        RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(1 << 20).nest_limit(32).build().ok()
    };
    PATTERN_SIZES.iter().find_map(|size| Some(Pattern { regex: build(*size)?, weight: (*size >> 10) as u32 }))
}
