"""Who uses what: names are followed through imports, and methods by class where a type is written down."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from tests.house.files import SourceFile, nodes_of, parsed

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Program:
    """The classes of all modules by their dotted names, and what modules call things that others define."""

    bases: dict[str, list[str]]
    aliases: dict[str, str]
    heirs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _families: dict[str, set[str]] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where a dotted name is defined, if it is one that a module has imported from another."""
        seen: set[str] = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name

    def family(self, name: str) -> set[str]:
        """A class, all that it inherits from and all that inherit from it."""
        if name not in self._families:
            up, down = {name}, {name}
            while more := {base for one in up for base in self.bases.get(one, ())} - up:
                up |= more
            while more := {heir for one in down for heir in self.heirs.get(one, ())} - down:
                down |= more
            self._families[name] = up | down
        return self._families[name]

    def is_structural(self, name: str) -> bool:
        """Whether values of other classes may stand where this one is written."""
        return any(one == "typing.Protocol" for one in self.family(name))


@dataclass
class Uses:
    """Dotted names, methods as `class.method`, and attributes of values whose type nothing says."""

    names: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


def module_of(file: SourceFile) -> str:
    """The dotted name by which a file is imported."""
    return file.path.removesuffix(".py").removesuffix("/__init__").removeprefix("libs/").replace("/", ".")


def program_of(files: list[SourceFile]) -> Program:
    """What has to be known of all files before one is looked at."""
    program = Program({}, {})
    for file in files:
        module, scope = module_of(file), _scope(file)
        program.aliases.update({f"{module}.{local}": name for local, name in scope.items()})
    for file in files:
        for node in parsed(file).body:
            if isinstance(node, ast.ClassDef):
                bases = [program.origin(_dotted(base, _scope(file))) for base in node.bases]
                name = f"{module_of(file)}.{node.name}"
                program.bases[name] = bases
                for base in bases:
                    program.heirs[base].append(name)
    return program


def uses_of(files: list[SourceFile], program: Program) -> Uses:
    """What these files use of the program."""
    uses = Uses()
    for file in files:
        _Reader(file, program, uses).visit(parsed(file))
    for method in list(uses.methods):
        owner, _, name = method.rpartition(".")
        uses.methods |= {f"{one}.{name}" for one in program.family(owner)}
    return uses


@cache
def _scope(file: SourceFile) -> dict[str, str]:
    """Local name -> dotted name, of all that a module imports or defines."""
    module, scope = module_of(file), dict[str, str]()
    for node in nodes_of(file):
        match node:
            case ast.ImportFrom(module=str(source), names=names, level=0):
                scope.update({each.asname or each.name: f"{source}.{each.name}" for each in names})
            case ast.Import(names=names):
                pairs = ((each.asname, each.name) if each.asname else (each.name.split(".")[0],) * 2 for each in names)
                scope.update(pairs)
    scope.update({name: f"{module}.{name}" for node in parsed(file).body for name in names_of(node)})
    return scope


def names_of(node: ast.stmt) -> list[str]:
    """What a statement of a module defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _dotted(node: ast.expr | None, scope: dict[str, str]) -> str:
    """The dotted name that an expression is, or is an instance of (`X[T]`, `X | None`); empty for anything else."""
    match node:
        case ast.Name(id=name):
            return scope.get(name, name)
        case ast.Attribute(value=value, attr=name):
            return f"{inner}.{name}" if (inner := _dotted(value, scope)) else ""
        case ast.Subscript(value=value) | ast.BinOp(left=value, right=ast.Constant(value=None)):
            return _dotted(value, scope)
    return ""


@cache
def _within(node: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a function, which several questions are about."""
    return tuple(ast.walk(node))


def _locals(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names that are a function's own: whatever the module calls so is not meant by them."""
    every = _within(node)
    own = {each.arg for each in every if isinstance(each, ast.arg)}
    own |= {each.id for each in every if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return own - {name for each in every if isinstance(each, ast.Global) for name in each.names}


class _Reader(ast.NodeVisitor):
    """Notes what one module uses."""

    def __init__(self, file: SourceFile, program: Program, uses: Uses) -> None:
        self._module = module_of(file)
        self._scope = _scope(file)
        self._program = program
        self._uses = uses
        self._types: dict[str, str] = {}
        """What is written down of the values at hand: `name` or `self.name` -> class."""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        owner = f"{self._module}.{node.name}"
        before, self._types = self._types, {"self": owner, "cls": owner, **self._of_attributes(node)}
        self.generic_visit(node)
        self._types = before

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outer in (*node.decorator_list, node.args, node.returns):
            if outer is not None:
                self.visit(outer)
        before = self._types, self._scope
        self._types = self._types | self._of_parameters(node)
        local = _locals(node)
        self._scope = {name: origin for name, origin in self._scope.items() if name not in local}
        for statement in node.body:
            self.visit(statement)
        self._types, self._scope = before

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._uses.names.add(self._program.origin(self._scope.get(node.id, node.id)))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                self._uses.attributes.add(name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return
        owner = self._class_of(node.value)
        if owner in self._program.bases and not self._program.is_structural(owner):
            self._uses.methods.add(f"{owner}.{node.attr}")
        else:
            self._uses.attributes.add(node.attr)
        self._uses.names.add(self._program.origin(_dotted(node, self._scope)))

    def _class_of(self, value: ast.expr) -> str:
        key = ast.unparse(value) if isinstance(value, ast.Name | ast.Attribute) else ""
        return self._types.get(key) or self._program.origin(_dotted(value, self._scope))

    def _of_parameters(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        written = [(each.arg, each.annotation) for each in every if each.annotation or each.arg not in {"self", "cls"}]
        names = [each for each in _within(node) if isinstance(each, ast.Name)]
        assigned = {each.id for each in names if isinstance(each.ctx, ast.Store)}
        known = {name: self._program.origin(_dotted(annotation, self._scope)) for name, annotation in written}
        return {name: "" if name in assigned else kind for name, kind in known.items()}

    def _of_attributes(self, owner: ast.ClassDef) -> dict[str, str]:
        """What fields are declared as, and attributes that get a parameter of a method as it is."""
        found: dict[str, set[str]] = {}
        for name, kind in self._declared(owner):
            found.setdefault(f"self.{name}", set()).add(kind)
        return {name: kinds.pop() for name, kinds in found.items() if len(kinds) == 1}

    def _declared(self, owner: ast.ClassDef) -> Iterator[tuple[str, str]]:
        for member in owner.body:
            match member:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    yield name, self._program.origin(_dotted(annotation, self._scope))
            if isinstance(member, _FUNCTIONS):
                parameters = self._of_parameters(member)
                for node in _within(member):
                    yield from self._assigned(node, parameters)

    def _assigned(self, node: ast.AST, parameters: dict[str, str]) -> Iterator[tuple[str, str]]:
        match node:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                yield name, parameters.get(value.id, "") if isinstance(value, ast.Name) else ""
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                yield name, self._program.origin(_dotted(annotation, self._scope))
