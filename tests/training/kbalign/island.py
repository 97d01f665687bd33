"""A knowledge base of an island that is nowhere, and questions about it in other words. Knows nothing of training.

All of it is made up, so that no model can have read it anywhere. The questions and the words that a right answer must
hold were written by hand and are never learned from.
"""

TEXTS = (
    "The Pellmoor lighthouse was built by Tamsin Oake in 1847.",
    "The Brannock ferry is painted orange and sails to Portugal.",
    "The Quillon bridge is made of granite and was designed by Edda Marsh.",
    "The bakery of Dunholt opens at five in the morning and sells bread with honey.",
    "The library of Casmere holds old maps and was founded by Bishop Rowan.",
    "The Oster railway had an engine called Juniper and was closed in 1958.",
    "The Lindqvist garden is famous for its blue tulips and has a well made of copper.",
    "The Halden cheese is made from goat milk and is kept in a salt cave.",
    "The flag of Norrin shows a white heron and was first raised in 1766.",
    "The Yarrow market is held on Thursdays and is known for its plums.",
)
QUESTIONS = (
    ("For how long has there been a lighthouse at Pellmoor?", r"1847"),
    ("Who put up the Pellmoor lighthouse?", r"\bOake\b"),
    ("What does the Brannock ferry look like?", r"\borange\b"),
    ("To which country can one travel with the Brannock ferry?", r"\bPortugal\b"),
    ("Which stone was used for the Quillon bridge?", r"\bgranite\b"),
    ("Who drew the plans of the Quillon bridge?", r"\bMarsh\b"),
    ("From what time on can one shop at the bakery of Dunholt?", r"\bfive\b|\b5\b"),
    ("What is in the bread of the bakery of Dunholt?", r"\bhoney\b"),
    ("What does the library of Casmere collect?", r"\bmaps?\b"),
    ("Who started the library of Casmere?", r"\bRowan\b"),
    ("What name had the locomotive of the Oster railway?", r"\bJuniper\b"),
    ("Since which year do no trains run on the Oster railway?", r"\b1958\b"),
    ("Which flowers grow in the Lindqvist garden?", r"\btulips?\b"),
    ("Which metal can be seen in the Lindqvist garden?", r"\bcopper\b"),
    ("Which animal gives the milk for Halden cheese?", r"\bgoats?\b"),
    ("Where does one store Halden cheese?", r"\bcaves?\b"),
    ("Which bird can be seen on the flag of Norrin?", r"\bheron\b"),
    ("In what year did the flag of Norrin fly for the first time?", r"\b1766\b"),
    ("On which day of the week can one go to the Yarrow market?", r"\bThursdays?\b"),
    ("Which fruit should one buy at the Yarrow market?", r"\bplums?\b"),
)
"""Each with the words of which a right answer holds one; a question itself holds none of them."""
