"""Public facts in many wordings: chemical elements and capitals of countries.

There are only so many facts, so the id is (fact, wording): a test asks a known fact in a wording that this fact was
never trained in. What is measured is recall, not the learning of new facts.
"""

import random
from collections.abc import Iterator

from qtool.records.task import Item

ELEMENTS = (
    "H hydrogen, He helium, Li lithium, Be beryllium, B boron, C carbon, N nitrogen, O oxygen, F fluorine, Ne neon, "
    "Na sodium, Mg magnesium, Al aluminium, Si silicon, P phosphorus, S sulfur, Cl chlorine, Ar argon, K potassium, "
    "Ca calcium, Sc scandium, Ti titanium, V vanadium, Cr chromium, Mn manganese, Fe iron, Co cobalt, Ni nickel, "
    "Cu copper, Zn zinc, Ga gallium, Ge germanium, As arsenic, Se selenium, Br bromine, Kr krypton, Rb rubidium, "
    "Sr strontium, Y yttrium, Zr zirconium, Nb niobium, Mo molybdenum, Tc technetium, Ru ruthenium, Rh rhodium, "
    "Pd palladium, Ag silver, Cd cadmium, In indium, Sn tin, Sb antimony, Te tellurium, I iodine, Xe xenon"
)
CAPITALS = (
    "Vienna Austria, Brussels Belgium, Sofia Bulgaria, Zagreb Croatia, Prague Czechia, Copenhagen Denmark, "
    "Tallinn Estonia, Helsinki Finland, Paris France, Berlin Germany, Athens Greece, Budapest Hungary, "
    "Reykjavik Iceland, Dublin Ireland, Rome Italy, Riga Latvia, Vilnius Lithuania, Valletta Malta, Oslo Norway, "
    "Warsaw Poland, Lisbon Portugal, Bucharest Romania, Moscow Russia, Belgrade Serbia, Bratislava Slovakia, "
    "Ljubljana Slovenia, Madrid Spain, Stockholm Sweden, Bern Switzerland, Kyiv Ukraine, "
    "Ankara Turkey, Cairo Egypt, Nairobi Kenya, Accra Ghana, Tunis Tunisia, Rabat Morocco, Dakar Senegal, "
    "Tokyo Japan, Beijing China, Hanoi Vietnam, Bangkok Thailand, Manila Philippines, "
    "Tehran Iran, Baghdad Iraq, Amman Jordan, Beirut Lebanon, Damascus Syria, Doha Qatar, Muscat Oman, "
    "Ottawa Canada, Havana Cuba, Lima Peru, Quito Ecuador, Bogota Colombia, Caracas Venezuela, Santiago Chile, "
    "Canberra Australia"
)
SPELLINGS = {
    "aluminium": ("aluminum",), "sulfur": ("sulphur",), "caesium": ("cesium",), "Czechia": ("Czech Republic",),
    "Kyiv": ("Kiev",), "Bogota": ("Bogotá",), "Reykjavik": ("Reykjavík",), "Turkey": ("Türkiye", "Turkiye"),
    "Bern": ("Berne",), "Philippines": ("the Philippines",), "Russia": ("Russian Federation",),
}  # fmt: skip
WORDINGS = {
    "symbol": (
        "What is the chemical symbol of {key}?",
        "Which symbol stands for the element {key}?",
        "Give the chemical symbol for {key}.",
        "How is {key} written as a chemical symbol?",
        "What symbol does {key} have in the periodic table?",
    ),
    "number": (
        "What is the atomic number of {key}?",
        "Which atomic number does {key} have?",
        "Give the atomic number of the element {key}.",
        "How many protons does an atom of {key} have?",
        "At which number in the periodic table is {key}?",
    ),
    "element": (
        "Which element has the symbol {key}?",
        "What does the chemical symbol {key} stand for?",
        "Name the element with the symbol {key}.",
        "In the periodic table, which element is {key}?",
        "What is the name of the element written {key}?",
    ),
    "capital": (
        "What is the capital of {key}?",
        "Which city is the capital of {key}?",
        "Name the capital city of {key}.",
        "What city is the seat of government of {key}?",
        "{key} has which capital?",
    ),
    "country": (
        "{key} is the capital of which country?",
        "Which country has {key} as its capital?",
        "Of which country is {key} the capital?",
        "Name the country whose capital is {key}.",
        "What country is governed from {key}?",
    ),
}
ENDINGS = ("", " Answer briefly.", " Answer in a word.", " Just the answer.")


def candidates(rng: random.Random) -> Iterator[Item]:
    """Every fact in every wording once, shuffled."""
    everything = [
        (kind, key, answer, wording + ending)
        for kind, facts in _facts().items()
        for key, answer in facts
        for wording in WORDINGS[kind]
        for ending in ENDINGS
    ]
    rng.shuffle(everything)
    for kind, key, answer, wording in everything:
        question = wording.format(key=key)
        yield Item(
            id=question,
            fields=(("question", question),),
            answer=f" {answer}",
            target=answer,
            slices=(("kind", kind),),
            accepts=SPELLINGS.get(answer, ()),
        )


def alike(identity: str) -> tuple[str, ...]:
    """Ids of the items that ask the same in the same words, with and without each ending."""
    stem = next((identity.removesuffix(ending) for ending in ENDINGS if ending and identity.endswith(ending)), identity)
    return tuple(stem + ending for ending in ENDINGS)


def _facts() -> dict[str, list[tuple[str, str]]]:
    """(what is asked about, answer) pairs of each kind of fact."""
    elements = [(entry.split()[0], entry.split()[1]) for entry in ELEMENTS.split(", ")]
    capitals = [(entry.split()[0], entry.split()[1]) for entry in CAPITALS.split(", ")]
    return {
        "symbol": [(name, symbol) for symbol, name in elements],
        "number": [(name, str(number)) for number, (_, name) in enumerate(elements, start=1)],
        "element": elements,
        "capital": [(country, city) for city, country in capitals],
        "country": capitals,
    }
