//! The table of variables: names resolved to indices at load time, values made lazily at run time.
//!
//! A variable is a function of the request, a stored value (`set`, regex captures), or computed once and kept
//! (`map`). Names such as `arg_x` belong to a prefix and need no definition.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use terrace_base::log::Level;
use terrace_conf::{ConfError, Position};

use crate::Request;

/// Appends the value; false when the variable has none (nginx's `not_found`).
pub type Get = fn(&Request, &mut Vec<u8>) -> bool;
/// As [`Get`], for a name under a prefix (`arg_` …); the name comes without the prefix.
pub type GetNamed = fn(&Request, &[u8], &mut Vec<u8>) -> bool;
/// Takes a new value (`set $args …`, `ngx.var.args = …`).
pub type Set = fn(&Request, &[u8]);

/// Told of a variable that is read before it was given a value in this request, with its name; it then is empty.
pub type Unset = fn(&Request, &[u8]);

/// How deep computed variables may stand in each other (nginx's bound too); deeper is a cycle.
const DEPTH_MAX: u8 = 100;

thread_local! {
    /// How deep the computed variable is that this thread evaluates.
    static DEPTH: Cell<u8> = const { Cell::new(0) };
}

/// A variable whose value some module computes, such as `map`'s.
pub trait Computed: Send + Sync {
    /// Appends the value; false when there is none.
    fn compute(&self, r: &Request, out: &mut Vec<u8>) -> bool;
}

/// Index of a variable in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VarIndex(pub(crate) u32);

#[derive(Clone)]
enum Kind {
    Undefined,
    Get(Get),
    GetSet(Get, Set),
    Named(GetNamed, Box<[u8]>),
    Stored(u32, Option<Unset>),
    Computed(Arc<dyn Computed>, Option<u32>),
}

struct Variable {
    name: Box<[u8]>,
    kind: Kind,
    first_use: Option<Position>,
    /// Whether having no value is nothing to report.
    may_be_unset: bool,
}

/// All variables of a generation.
#[derive(Default)]
pub struct VarTable {
    names: FxHashMap<Box<[u8]>, u32>,
    variables: Vec<Variable>,
    prefixes: Vec<(&'static str, GetNamed)>,
    slots: u32,
}

/// A stored value of one request.
#[derive(Debug, Clone, Default)]
pub enum Slot {
    /// Never set, or to be computed again.
    #[default]
    Unset,
    /// Known to have no value.
    NotFound,
    /// The value.
    Value(Bytes),
}

impl VarTable {
    fn entry(&mut self, name: &[u8]) -> usize {
        // Names are the same in any case, as in nginx.
        let lower = name.to_ascii_lowercase();
        let name = &lower[..];
        if let Some(i) = self.names.get(name) {
            return *i as usize;
        }
        let i = self.variables.len();
        self.names.insert(name.into(), i as u32);
        let kind = self.prefixed(name).unwrap_or(Kind::Undefined);
        self.variables.push(Variable { name: name.into(), kind, first_use: None, may_be_unset: false });
        i
    }

    fn prefixed(&self, name: &[u8]) -> Option<Kind> {
        let (p, get) = self.prefixes.iter().find(|(p, _)| name.starts_with(p.as_bytes()))?;
        Some(Kind::Named(*get, name[p.len()..].into()))
    }

    fn new_slot(&mut self) -> u32 {
        self.slots += 1;
        self.slots - 1
    }

    /// Defines a read-only variable.
    pub fn define(&mut self, name: &str, get: Get) {
        let i = self.entry(name.as_bytes());
        self.variables[i].kind = Kind::Get(get);
    }

    /// Defines a variable that scripts may change.
    pub fn define_changeable(&mut self, name: &str, get: Get, set: Set) {
        let i = self.entry(name.as_bytes());
        self.variables[i].kind = Kind::GetSet(get, set);
    }

    /// Defines a family of variables by prefix.
    pub fn define_prefix(&mut self, prefix: &'static str, get: GetNamed) {
        self.prefixes.push((prefix, get));
        self.prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
    }

    /// Defines a computed variable. With `cached`, it is computed once a request.
    pub fn define_computed(&mut self, name: &[u8], by: Arc<dyn Computed>, cached: bool) -> VarIndex {
        let slot = cached.then(|| self.new_slot());
        let i = self.entry(name);
        self.variables[i].kind = Kind::Computed(by, slot);
        VarIndex(i as u32)
    }

    /// Defines (or finds) a variable that holds what it is given: `set $name …`. A built-in variable that may
    /// be changed is found; one that may not is an error, as in nginx.
    pub fn define_stored(&mut self, name: &[u8]) -> Result<VarIndex, String> {
        let i = self.entry(name);
        match self.variables[i].kind {
            Kind::Undefined | Kind::Named(..) => {
                let slot = self.new_slot();
                self.variables[i].kind = Kind::Stored(slot, None);
            }
            Kind::Stored(..) | Kind::GetSet(..) | Kind::Computed(_, Some(_)) => {}
            Kind::Get(_) | Kind::Computed(_, None) => {
                return Err(format!("the duplicate \"{}\" variable", String::from_utf8_lossy(name)));
            }
        }
        Ok(VarIndex(i as u32))
    }

    /// Defines a variable of a module's that holds what it is given and has no value until then.
    pub fn define_settable(&mut self, name: &str) -> VarIndex {
        let slot = self.new_slot();
        let i = self.entry(name.as_bytes());
        self.variables[i].kind = Kind::Stored(slot, None);
        self.variables[i].may_be_unset = true;
        VarIndex(i as u32)
    }

    /// Has `report` called when a stored variable is read before it was given a value; it then counts as empty. Not
    /// for those of [`VarTable::define_settable`].
    pub fn report_unset(&mut self, index: VarIndex, report: Unset) {
        let variable = &mut self.variables[index.0 as usize];
        if let Kind::Stored(_, unset) = &mut variable.kind
            && !variable.may_be_unset
        {
            *unset = Some(report);
        }
    }

    /// Resolves a name used in the configuration; it must be defined by the end of it.
    pub fn reference(&mut self, name: &[u8], at: &Position) -> VarIndex {
        let i = self.entry(name);
        self.variables[i].first_use.get_or_insert_with(|| at.clone());
        VarIndex(i as u32)
    }

    /// nginx's `unknown "name" variable` for what was used and never defined.
    pub fn check(&self) -> Result<(), ConfError> {
        for v in &self.variables {
            if let (Kind::Undefined, Some(at)) = (&v.kind, &v.first_use) {
                let name = String::from_utf8_lossy(&v.name);
                return Err(ConfError::at(at, format!("unknown \"{name}\" variable")));
            }
        }
        Ok(())
    }

    /// The index of a name known at load time.
    pub fn find(&self, name: &[u8]) -> Option<VarIndex> {
        let i = *self.names.get(name)?;
        (!matches!(self.variables[i as usize].kind, Kind::Undefined)).then_some(VarIndex(i))
    }

    /// Whether the variable is one of a family, which no directive has defined by itself.
    pub fn is_of_prefix(&self, index: VarIndex) -> bool {
        matches!(self.variables[index.0 as usize].kind, Kind::Named(..))
    }

    /// The defined variables in the order of their definition, and whether they may be changed; for the reference.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let defined = self.variables.iter().filter(|it| !matches!(it.kind, Kind::Undefined));
        let is_fixed = |kind: &Kind| matches!(kind, Kind::Get(_) | Kind::Named(..) | Kind::Computed(_, None));
        defined.map(move |it| (&*it.name, !is_fixed(&it.kind)))
    }

    /// The prefixes that stand for families of variables, longer ones first.
    pub fn prefixes(&self) -> impl Iterator<Item = &'static str> {
        self.prefixes.iter().map(|(prefix, _)| *prefix)
    }

    /// How many slots a request needs at the most.
    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Appends the variable's value; false when it has none.
    pub fn get(&self, r: &Request, index: VarIndex, out: &mut Vec<u8>) -> bool {
        match &self.variables[index.0 as usize].kind {
            Kind::Undefined => false,
            Kind::Get(get) | Kind::GetSet(get, _) => get(r, out),
            Kind::Named(get, name) => get(r, name, out),
            Kind::Stored(slot, unset) => match (kept(r, *slot, out), unset) {
                (Some(found), _) => found,
                (None, None) => false,
                (None, Some(report)) => {
                    r.put_slot(*slot, Slot::Value(Bytes::new()));
                    report(r, self.name(index));
                    true
                }
            },
            Kind::Computed(by, None) => self.computed(r, index, by.as_ref(), out),
            Kind::Computed(by, Some(slot)) => match kept(r, *slot, out) {
                Some(found) => found,
                None => self.cached(r, index, by.as_ref(), *slot, out),
            },
        }
    }

    /// Computes a value, unless it needs itself.
    fn computed(&self, r: &Request, index: VarIndex, by: &dyn Computed, out: &mut Vec<u8>) -> bool {
        let depth = DEPTH.get();
        if depth >= DEPTH_MAX {
            let name = String::from_utf8_lossy(self.name(index));
            r.log(Level::Error, format_args!("cycle while evaluating variable \"{name}\""));
            return false;
        }
        DEPTH.set(depth + 1);
        let found = by.compute(r, out);
        DEPTH.set(depth);
        found
    }

    fn cached(&self, r: &Request, index: VarIndex, by: &dyn Computed, slot: u32, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let found = self.computed(r, index, by, out);
        let value = if found { Slot::Value(Bytes::copy_from_slice(&out[start..])) } else { Slot::NotFound };
        r.put_slot(slot, value);
        found
    }

    /// Appends the value of a variable found by name at run time; `None` when there is no such variable.
    pub fn get_by_name(&self, r: &Request, name: &[u8], out: &mut Vec<u8>) -> Option<bool> {
        if let Some(i) = self.names.get(name)
            && !matches!(self.variables[*i as usize].kind, Kind::Undefined)
        {
            return Some(self.get(r, VarIndex(*i), out));
        }
        let (p, get) = self.prefixes.iter().find(|(p, _)| name.starts_with(p.as_bytes()))?;
        Some(get(r, &name[p.len()..], out))
    }

    /// Changes a variable; `None` as value makes it "not found". False when it may not be changed.
    pub fn set(&self, r: &Request, index: VarIndex, value: Option<Bytes>) -> bool {
        let slot = match &self.variables[index.0 as usize].kind {
            Kind::GetSet(_, set) => {
                set(r, value.as_deref().unwrap_or_default());
                return true;
            }
            Kind::Stored(slot, _) | Kind::Computed(_, Some(slot)) => *slot,
            _ => return false,
        };
        r.put_slot(slot, value.map_or(Slot::NotFound, Slot::Value));
        true
    }

    /// The name of a variable, for messages.
    pub fn name(&self, index: VarIndex) -> &[u8] {
        &self.variables[index.0 as usize].name
    }
}

/// Appends a kept value: whether it was found, `None` when it was never set.
fn kept(r: &Request, slot: u32, out: &mut Vec<u8>) -> Option<bool> {
    r.slot(slot, |s| match s {
        Slot::Unset => None,
        Slot::NotFound => Some(false),
        Slot::Value(v) => {
            out.extend_from_slice(v);
            Some(true)
        }
    })
}
