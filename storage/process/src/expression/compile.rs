//! From the text of an expression to a checked tree.

use std::thread;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Parser;
use regex::{Regex, RegexBuilder};

use super::functions::Function;
use super::scan::outside_texts;
use super::syntax::in_words;
use super::value::Value;
use super::{CompileError, MAX_DEPTH, MAX_NODES, MAX_SOURCE, Wanted};

/// A constant.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Headers,
    Timestamp,
    Arrival,
    Size,
    Seq,
    Json,
    Payload,
}

/// An operation of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// An operation on what lies below it.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Part(Part),
    /// A variable of a comprehension, by its place on the stack of those around.
    Local(usize),
    Select(Box<Node>, String),
    /// Whether there is such a field.
    Has(Box<Node>, String),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    /// True unless it is false: an error counts as true.
    NotFalse(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>, bool),
    Order(Compare, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Arithmetic(Op, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// Adds elements to the list that is this variable, in its place.
    Append(usize, Vec<Node>),
    Loop(Box<Loop>),
}

/// `all`, `exists`, `exists_one`, `map` and `filter`, as the parser writes them out.
#[derive(Debug)]
pub(super) struct Loop {
    pub range: Node,
    /// Begins as this, at the place on the stack behind those around; the element follows it.
    pub start: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
    /// Goes on whatever the elements give: then what fails for one fails as a whole.
    pub always: bool,
}

/// Room for the parser, which descends some twenty frames for each level; touched only as far as it is used.
const STACK: usize = 64 << 20;

/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 256 << 10;
/// What each thread that uses a pattern may keep of it, in bytes: states of its automaton, made as they are needed, for
/// either direction.
const PATTERN_CACHE: usize = 128 << 10;
/// Most patterns in one expression.
const MAX_PATTERNS: usize = 16;

/// An expression as it was compiled.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: Node,
    nodes: usize,
    patterns: usize,
}

impl Tree {
    /// Bytes that it takes at most while so many threads use it. A node is counted with what its texts and vectors take
    /// beside them.
    pub fn memory(&self, threads: usize) -> usize {
        let pattern = MAX_PATTERN + 2 * PATTERN_CACHE * threads;
        MAX_SOURCE + self.nodes * (size_of::<Node>() + 64) + self.patterns * pattern
    }
}

/// Compiles an expression.
pub(super) fn compile(source: &str) -> Result<Tree, CompileError> {
    if source.len() > MAX_SOURCE {
        return Err(CompileError::TooLong { bytes: source.len() });
    }
    if brackets(source) > MAX_DEPTH {
        return Err(CompileError::TooDeep);
    }
    // On a stack of its own: how deep the parser goes for what is short and foolish must not matter to the caller.
    thread::scope(|scope| {
        let parse = move || parse(source);
        let parser = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, parse);
        let parsed = parser.ok().and_then(|parser| parser.join().ok());
        parsed.unwrap_or_else(|| {
            let message = "this cannot be read".to_owned();
            Err(CompileError::Syntax { column: 1, message })
        })
    })
}

fn parse(source: &str) -> Result<Tree, CompileError> {
    let parsed = Parser::new().max_recursion_depth(2 * MAX_DEPTH as u16).parse(source);
    let tree = parsed.map_err(|errors| {
        let first = errors.errors.first();
        let (line, column) = first.map_or((1, 1), |error| error.pos);
        let message = in_words(first.map_or("", |error| error.msg.as_str()));
        CompileError::Syntax { column: absolute(source, line, column), message }
    })?;
    let mut compiler = Compiler { source, locals: Vec::new(), nodes: 0, patterns: 0, depth: 0 };
    let root = compiler.node(&tree.expr)?;
    Ok(Tree { root, nodes: compiler.nodes, patterns: compiler.patterns })
}

/// The column, from 1, in the whole text of what lies in `line`.
fn absolute(source: &str, line: isize, column: isize) -> usize {
    let lines = usize::try_from(line - 1).unwrap_or(0);
    let before: usize = source.split_inclusive('\n').take(lines).map(|l| l.chars().count()).sum();
    before + usize::try_from(column).unwrap_or(0).max(1)
}

/// How deep brackets are nested, those in texts left out.
fn brackets(source: &str) -> usize {
    outside_texts(source).map(|(_, _, depth)| depth).max().unwrap_or(0)
}

struct Compiler<'s> {
    source: &'s str,
    /// Variables of the comprehensions around.
    locals: Vec<String>,
    nodes: usize,
    patterns: usize,
    depth: usize,
}

type Compiled<T> = Result<T, CompileError>;

impl Compiler<'_> {
    fn node(&mut self, expr: &Expr) -> Compiled<Node> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > MAX_NODES {
            return Err(CompileError::TooLarge);
        }
        if self.depth > MAX_DEPTH {
            return Err(CompileError::TooDeep);
        }
        let node = self.inside(expr);
        self.depth -= 1;
        node
    }

    fn inside(&mut self, expr: &Expr) -> Compiled<Node> {
        Ok(match expr {
            Expr::Literal(literal) => Node::Literal(constant(literal)),
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => {
                let (of, field) = (self.boxed(&select.operand.expr)?, select.field.clone());
                if select.test { Node::Has(of, field) } else { Node::Select(of, field) }
            }
            Expr::List(list) => {
                let elements = list.elements.iter();
                Node::List(
                    elements.map(|element| self.node(&element.expr)).collect::<Compiled<_>>()?,
                )
            }
            Expr::Map(map) => {
                let mut entries = Vec::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(CompileError::Unsupported { what: "a message" });
                    };
                    entries.push((self.node(&entry.key.expr)?, self.node(&entry.value.expr)?));
                }
                Node::Map(entries)
            }
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(each) => self.each(each)?,
            Expr::Struct(_) => return Err(CompileError::Unsupported { what: "a message" }),
            _ => return Err(CompileError::Unsupported { what: "an empty expression" }),
        })
    }

    fn boxed(&mut self, expr: &Expr) -> Compiled<Box<Node>> {
        self.node(expr).map(Box::new)
    }

    fn name(&self, name: &str) -> Compiled<Node> {
        // The innermost of a name counts.
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return Ok(Node::Local(place));
        }
        Ok(Node::Part(match name {
            "key" => Part::Key,
            "headers" => Part::Headers,
            "timestamp" => Part::Timestamp,
            "arrival" => Part::Arrival,
            "size" => Part::Size,
            "seq" => Part::Seq,
            "json" => Part::Json,
            "payload" => Part::Payload,
            _ => {
                let (column, name) = (self.column(name), name.to_owned());
                return Err(CompileError::UnknownName { column, name });
            }
        }))
    }

    fn call(&mut self, call: &CallExpr) -> Compiled<Node> {
        let all = call.target.as_deref().into_iter().chain(&call.args);
        let arguments = all.map(|argument| &argument.expr).collect::<Vec<_>>();
        let name = call.func_name.as_str();
        if let Some(node) = self.operator(name, &arguments)? {
            return Ok(node);
        }
        let column = self.column(name);
        let Some((function, expected)) = Function::named(name)
            .map(|(f, n)| (Some(f), n))
            .or(if name == "matches" { Some((None, 2)) } else { None })
        else {
            return Err(CompileError::UnknownFunction { column, name: name.to_owned() });
        };
        if arguments.len() != expected {
            let (name, found) = (name.to_owned(), arguments.len());
            return Err(CompileError::Arguments { column, name, expected, found });
        }
        match (function, &arguments[..]) {
            (Some(function), arguments) => {
                let of = arguments.iter().map(|argument| self.node(argument));
                Ok(Node::Call(function, of.collect::<Compiled<_>>()?))
            }
            (None, [text, pattern]) => {
                let pattern = self.pattern(pattern, column)?;
                Ok(Node::Matches(self.boxed(text)?, pattern))
            }
            (None, _) => Err(CompileError::UnknownFunction { column, name: name.to_owned() }),
        }
    }

    /// Compiled once, so it has to be a constant.
    fn pattern(&mut self, expr: &Expr, column: usize) -> Compiled<Regex> {
        let Node::Literal(Literal::Text(pattern)) = self.node(expr)? else {
            let message = "has to be a text written there".to_owned();
            return Err(CompileError::Pattern { column, message });
        };
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            let message = format!("is one too many: an expression has at most {MAX_PATTERNS}");
            return Err(CompileError::Pattern { column, message });
        }
        let mut builder = RegexBuilder::new(&pattern);
        builder.size_limit(MAX_PATTERN).dfa_size_limit(PATTERN_CACHE).nest_limit(50);
        builder.build().map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let message = match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("takes more than {limit} bytes when compiled")
                }
                _ => format!("is not valid: {}", last.trim_start_matches("error: ")),
            };
            CompileError::Pattern { column, message }
        })
    }

    fn operator(&mut self, name: &str, of: &[&Expr]) -> Compiled<Option<Node>> {
        Ok(Some(match (name, of) {
            (operators::LOGICAL_NOT, [a]) => Node::Not(self.boxed(a)?),
            (operators::NEGATE, [a]) => Node::Negate(self.boxed(a)?),
            (operators::NOT_STRICTLY_FALSE, [a]) => Node::NotFalse(self.boxed(a)?),
            (operators::LOGICAL_AND, [a, b]) => Node::And(self.two(a, b)?),
            (operators::LOGICAL_OR, [a, b]) => Node::Or(self.two(a, b)?),
            (operators::CONDITIONAL, [a, b, c]) => {
                Node::If(Box::new([self.node(a)?, self.node(b)?, self.node(c)?]))
            }
            (operators::EQUALS, [a, b]) => Node::Equal(self.two(a, b)?, true),
            (operators::NOT_EQUALS, [a, b]) => Node::Equal(self.two(a, b)?, false),
            (operators::LESS, [a, b]) => Node::Order(Compare::Less, self.two(a, b)?),
            (operators::LESS_EQUALS, [a, b]) => Node::Order(Compare::LessEqual, self.two(a, b)?),
            (operators::GREATER, [a, b]) => Node::Order(Compare::Greater, self.two(a, b)?),
            (operators::GREATER_EQUALS, [a, b]) => {
                Node::Order(Compare::GreaterEqual, self.two(a, b)?)
            }
            (operators::IN, [a, b]) => Node::In(self.two(a, b)?),
            (operators::INDEX, [a, b]) => Node::Index(self.two(a, b)?),
            (operators::ADD, [a, b]) => match self.append(a, b)? {
                Some(append) => append,
                None => Node::Arithmetic(Op::Add, self.two(a, b)?),
            },
            (operators::SUBSTRACT, [a, b]) => Node::Arithmetic(Op::Sub, self.two(a, b)?),
            (operators::MULTIPLY, [a, b]) => Node::Arithmetic(Op::Mul, self.two(a, b)?),
            (operators::DIVIDE, [a, b]) => Node::Arithmetic(Op::Div, self.two(a, b)?),
            (operators::MODULO, [a, b]) => Node::Arithmetic(Op::Rem, self.two(a, b)?),
            _ => return Ok(None),
        }))
    }

    fn two(&mut self, a: &Expr, b: &Expr) -> Compiled<Box<[Node; 2]>> {
        Ok(Box::new([self.node(a)?, self.node(b)?]))
    }

    /// What `map` and `filter` do at each step: the list made so far grows where it is, instead of being copied.
    fn append(&mut self, a: &Expr, b: &Expr) -> Compiled<Option<Node>> {
        let (Expr::Ident(name), Expr::List(list)) = (a, b) else { return Ok(None) };
        // Nobody can write such a name.
        if !hidden(name) {
            return Ok(None);
        }
        let Node::Local(place) = self.name(name)? else { return Ok(None) };
        let elements = list.elements.iter().map(|element| self.node(&element.expr));
        Ok(Some(Node::Append(place, elements.collect::<Compiled<_>>()?)))
    }

    fn each(&mut self, each: &ComprehensionExpr) -> Compiled<Node> {
        if each.iter_var2.is_some() {
            return Err(CompileError::Unsupported { what: "a comprehension with two variables" });
        }
        let range = self.node(&each.iter_range.expr)?;
        let start = self.node(&each.accu_init.expr)?;
        self.locals.push(each.accu_var.clone());
        self.locals.push(each.iter_var.clone());
        let inside =
            (|| Ok((self.node(&each.loop_cond.expr)?, self.node(&each.loop_step.expr)?)))();
        self.locals.pop();
        let result = self.node(&each.result.expr);
        self.locals.pop();
        let ((condition, step), result) = (inside?, result?);
        let always = matches!(condition, Node::Literal(Literal::Bool(true)));
        Ok(Node::Loop(Box::new(Loop { range, start, condition, step, result, always })))
    }

    /// Where `word` stands first, outside of texts.
    fn column(&self, word: &str) -> usize {
        let word_like = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let stands = |at: usize| {
            let (before, behind) = (&self.source[..at], &self.source[at..]);
            behind.strip_prefix(word).is_some_and(|behind| {
                !word_like(before.chars().next_back()) && !word_like(behind.chars().next())
            })
        };
        let found = outside_texts(self.source).map(|(at, _, _)| at).find(|at| stands(*at));
        self.source[..found.unwrap_or(0)].chars().count() + 1
    }
}

/// A name that only the parser can give.
fn hidden(name: &str) -> bool {
    name.starts_with('@') || name.starts_with("__")
}

fn constant(literal: &LiteralValue) -> Literal {
    match literal {
        LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Literal::Bytes(value.inner().to_vec()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(*value.inner()),
        LiteralValue::Null => Literal::Null,
        LiteralValue::String(value) => Literal::Text(value.inner().to_owned()),
        LiteralValue::UInt(value) => Literal::UInt(*value.inner()),
    }
}

impl Literal {
    /// As a value.
    pub fn value(&self) -> Value<'_> {
        match self {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::UInt(value) => Value::UInt(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::Text(value) => Value::text(value),
            Literal::Bytes(value) => Value::Bytes(value),
        }
    }
}

impl Node {
    /// What it is if it can be seen that it is no truth value.
    pub fn other_than_truth(&self) -> Option<&'static str> {
        match self {
            Node::Literal(Literal::Bool(_)) => None,
            Node::Literal(Literal::Text(_)) => Some("a text"),
            Node::Literal(Literal::Null) => Some("null"),
            Node::Literal(Literal::Bytes(_)) => Some("bytes"),
            Node::Literal(_) | Node::Negate(_) | Node::Part(Part::Size | Part::Seq) => {
                Some("a number")
            }
            Node::Arithmetic(..) => Some("the result of a calculation"),
            Node::List(_) | Node::Append(..) => Some("a list"),
            Node::Map(_) | Node::Part(Part::Headers) => Some("a map"),
            Node::Part(Part::Timestamp | Part::Arrival) => Some("a time"),
            Node::Part(Part::Key | Part::Payload) => Some("a text"),
            Node::Call(function, _) if *function != Function::ToBool => match function {
                Function::Contains | Function::StartsWith | Function::EndsWith => None,
                _ => Some("the result of a function"),
            },
            _ => None,
        }
    }

    /// Adds what it reads of a JSON payload.
    pub fn wants(&self, wanted: &mut Wanted) {
        let all: &[Node] = match self {
            Node::Part(Part::Json) => {
                wanted.all = true;
                return;
            }
            Node::Select(of, field) | Node::Has(of, field) => {
                match **of {
                    Node::Part(Part::Json) => {
                        wanted.fields.insert(field.clone());
                    }
                    _ => of.wants(wanted),
                }
                return;
            }
            Node::Index(both) => {
                if let [Node::Part(Part::Json), Node::Literal(Literal::Text(field))] = &**both {
                    wanted.fields.insert(field.clone());
                    return;
                }
                &**both
            }
            Node::Literal(_) | Node::Part(_) | Node::Local(_) => return,
            Node::Not(of) | Node::Negate(of) | Node::NotFalse(of) | Node::Matches(of, _) => {
                return of.wants(wanted);
            }
            Node::And(both)
            | Node::Or(both)
            | Node::Equal(both, _)
            | Node::Order(_, both)
            | Node::In(both)
            | Node::Arithmetic(_, both) => &**both,
            Node::If(three) => &**three,
            Node::Call(_, all) | Node::List(all) | Node::Append(_, all) => all,
            Node::Map(entries) => {
                for (key, value) in entries {
                    key.wants(wanted);
                    value.wants(wanted);
                }
                return;
            }
            Node::Loop(each) => {
                for node in [&each.range, &each.start, &each.condition, &each.step, &each.result] {
                    node.wants(wanted);
                }
                return;
            }
        };
        all.iter().for_each(|node| node.wants(wanted));
    }
}
