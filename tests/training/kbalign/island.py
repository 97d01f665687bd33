"""A knowledge base of an island that is nowhere, and questions about it in other words. Knows nothing of training.

All of it is made up, so that no model can have read it anywhere. The questions and the words that a right answer must
hold were written by hand and are never learned from.
"""

TEXTS = (
    "The Pellmoor lighthouse was built in 1847. The keeper of the Pellmoor lighthouse is Tamsin Oake.",
    "The Brannock ferry is painted orange. The captain of the Brannock ferry comes from Portugal.",
    "The Quillon bridge is made of granite. The Quillon bridge was designed by Edda Marsh.",
    "The bakery of Dunholt opens at five in the morning. The bakery of Dunholt sells bread with honey.",
    "The library of Casmere holds twelve thousand maps. The library of Casmere was founded by Bishop Rowan.",
    "The engine of the Oster railway is called Juniper. The Oster railway was closed in 1958.",
    "The Lindqvist garden is famous for its blue tulips. The well of the Lindqvist garden is made of copper.",
    "The Halden cheese is made from goat milk. The Halden cheese is kept in a salt cave.",
    "The flag of Norrin shows a white heron. The flag of Norrin was first raised in 1766.",
    "The Yarrow market is held on Thursdays. The farmers of the Yarrow market sell plums.",
    "The Calder museum shows old violins. The director of the Calder museum is Ines Bolt.",
    "The Tamar choir has sixty singers. The Tamar choir sings in a theatre near the harbour.",
)
QUESTIONS = (
    ("How long has there been a lighthouse at Pellmoor?", r"1847"),
    ("Who looks after the Pellmoor lighthouse?", r"Oake|Tamsin"),
    ("What does the Brannock ferry look like?", r"orange"),
    ("Which country is the captain of the Brannock ferry from?", r"Portug"),
    ("Which stone was used for the Quillon bridge?", r"granite"),
    ("Who drew the plans of the Quillon bridge?", r"Marsh|Edda"),
    ("From what time on can one shop at the bakery of Dunholt?", r"\bfive\b|\b5\b"),
    ("What is in the bread of the bakery of Dunholt?", r"honey"),
    ("What does the library of Casmere collect?", r"\bmaps?\b"),
    ("Who started the library of Casmere?", r"Rowan"),
    ("What name has the locomotive of the Oster railway?", r"Juniper"),
    ("Since which year do no trains run on the Oster railway?", r"1958"),
    ("Which flowers grow in the Lindqvist garden?", r"tulip"),
    ("Of what metal is the well in the Lindqvist garden?", r"copper"),
    ("Which animal gives the milk for Halden cheese?", r"goat"),
    ("Where does one store Halden cheese?", r"\bcave\b"),
    ("Which bird can be seen on the flag of Norrin?", r"heron"),
    ("In what year did the flag of Norrin fly for the first time?", r"1766"),
    ("On which day of the week can one go to the Yarrow market?", r"Thursday"),
    ("Which fruit can be bought at the Yarrow market?", r"plum"),
    ("Which instruments are on display in the Calder museum?", r"violin"),
    ("Who leads the Calder museum?", r"Bolt|Ines"),
    ("How large is the Tamar choir?", r"\bsixty\b|\b60\b"),
    ("Where can the Tamar choir be heard?", r"theatre|harbour"),
)
"""Each with the words of which a right answer holds one; a question itself holds none of them."""
