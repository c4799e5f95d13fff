"""The words of the small town that the demo model's stories are set in: data, no rules.

In sentences `{n}` is a person's name, `{p}` she or he, `{o}` her or him, `{s}` her or his; `{a}` and
`{b}` or `{m}` are other people's names.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIRLS = _words(
    "Ada Bella Clara Dora Emma Frida Greta Hanna Ida Julia Lena Mia "
    "Nora Olive Paula Rosa Ruth Sofia Tilda Ute Vera Wanda Yara Zoe"
)
BOYS = _words(
    "Anton Ben Carl Emil Felix Georg Hugo Ivan Jonas Karl Leo Max "
    "Nils Otto Peter Ralf Sam Theo Tom Ulf Viktor Walter Yuri Zeno"
)
NAMES = (*GIRLS, *BOYS)

# Every place goes with "at the".
PLACES = _words(
    "harbour mill bakery library lighthouse market station school castle bridge farm pond chapel inn "
    "fountain museum theatre orchard smithy boathouse greenhouse ferry vineyard bandstand"
)

# One of them can be found, owned, lent, given away; none is a place, a cause or countable below.
OBJECTS = _words(
    "kite drum lantern compass flute ball book puzzle map whistle teapot clock scarf basket hat robot "
    "telescope violin coin mirror bell mask sledge trumpet chair cushion vase flag wheel globe"
)
LOOKS = _words("red blue green yellow white black little old pretty")

COUNTED = _words(
    "apples eggs buttons shells pears stamps marbles candles cookies tulips feathers pebbles ribbons "
    "lemons postcards acorns plums pancakes pencils cherries"
)
NUMBERS = _words(
    "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen"
)

# What happened, the beginning of the sentence that explains, and what came of it. Each has a word
# of its own (first), which stands in what happened and in the explanation and nowhere else.
CAUSES = (
    ("umbrella", "{n} left the umbrella at home, and at noon it began to rain",
     "Without the umbrella {n}", "came home wet to the skin"),
    ("alarm", "{n} forgot to set the alarm before going to bed",
     "Because the alarm never rang, {n}", "slept until noon"),
    ("ladder", "{n} climbed the ladder although one step was broken",
     "On that ladder {n}", "slipped and hurt a knee"),
    ("pepper", "{n} shook far too much pepper into the soup",
     "Because of the pepper {n}", "sneezed nine times in a row"),
    ("boots", "{n} walked all day in boots that were too small",
     "Thanks to those boots {n}", "had blisters on both feet"),
    ("onions", "{n} cut a whole bowl of onions for the stew",
     "Over the onions {n}", "cried without being sad"),
    ("oven", "{n} put a cake into the oven and then forgot all about it",
     "When the oven was opened, {n}", "found only black crumbs"),
    ("ice", "{n} danced on the ice although it was much too thin",
     "When the ice cracked, {n}", "fell into the cold water"),
    ("honey", "{n} carried the honey past a hundred hungry bees",
     "On account of the honey {n}", "was stung on the nose"),
    ("paint", "{n} leaned against a door whose paint was still fresh",
     "Because of the paint {n}", "had a long stripe on the coat"),
    ("gate", "{n} left the gate open, and the goats saw it",
     "Because of the open gate {n}", "had to chase the goats"),
    ("snow", "{n} had to dig a path through the deep snow before breakfast",
     "After all that snow {n}", "had cold fingers and red ears"),
    ("mushrooms", "{n} ate mushrooms that nobody knew the name of",
     "After those mushrooms {n}", "had to lie down with a sore belly"),
    ("coffee", "{n} drank five cups of coffee late in the evening",
     "After so much coffee {n}", "could not fall asleep"),
    ("sun", "{n} lay in the sun the whole afternoon without a shirt",
     "After a day in the sun {n}", "was as pink as a pig"),
    ("song", "{n} sang the same song very loudly from dawn to dusk",
     "After singing that song {n}", "lost all voice and could only whisper"),
    ("homework", "{n} did the homework carefully and checked every line",
     "For such good homework {n}", "was praised by the teacher"),
    ("seeds", "{n} sowed seeds in spring and watered them every day",
     "From those seeds {n}", "grew a garden full of sunflowers"),
    ("mud", "{n} rode a bicycle straight through the mud",
     "After the ride through the mud {n}", "needed a hot bath"),
    ("race", "{n} trained for the race every single morning",
     "At the end of the race {n}", "stood proudly on the highest step"),
    ("puppy", "{n} found a lost puppy and took it back to its owner",
     "For bringing back the puppy {n}", "was thanked with a big hug"),
    ("fog", "{n} went into the fog without a lamp",
     "In the fog {n}", "lost the way twice"),
    ("toothache", "{n} had a toothache that kept getting worse",
     "With the toothache {n}", "had to visit the dentist"),
    ("sail", "{n} raised the sail just as the wind turned",
     "With the wind in the sail {n}", "crossed the bay in an hour"),
    ("ghost", "{n} heard a ghost moaning in the attic at midnight",
     "For fear of the ghost {n}", "hid under the blanket"),
    ("circus", "{n} got a free ticket for the circus",
     "At the circus {n}", "laughed at the clowns all evening"),
    ("splinter", "{n} ran barefoot over the jetty and caught a splinter",
     "Because of the splinter {n}", "could only walk on one foot"),
    ("treasure", "{n} dug where the cross was and hit a treasure",
     "Thanks to the treasure {n}", "was rich before supper"),
    ("piano", "{n} practised the piano until every note was right",
     "At the piano {n}", "played without a mistake"),
    ("bus", "{n} talked too long at the corner and missed the bus",
     "Without the bus {n}", "had to walk all the way"),
)  # fmt: skip

# Past tense -> sentences that say so.
DEEDS = {
    "found": ("{n} found {thing} in the tall grass.", "{Thing} was found by {n}."),
    "painted": ("With a fine brush {n} painted {thing}.", "{Thing} was painted by {n}."),
    "repaired": ("In {s} workshop {n} repaired {thing}.", "{Thing} was repaired by {n}."),
    "bought": ("With {s} last money {n} bought {thing}.", "{Thing} was bought by {n}."),
    "lost": ("{n} lost {thing} on the way.", "{Thing} was lost by {n}."),
    "hidden": ("Under the bed {n} had hidden {thing}.", "{Thing} was hidden by {n}."),
    "carried": ("{n} carried {thing} up the hill.", "{Thing} was carried by {n}."),
    "sold": ("{n} sold {thing} without a word.", "{Thing} was sold by {n}."),
    "borrowed": ("{n} borrowed {thing} from a cousin.", "{Thing} was borrowed by {n}."),
    "won": ("To the surprise of all, {n} won {thing}.", "{Thing} was won by {n}."),
}
WHO = ("So the {thing} was {verb} by", "In truth the {thing} was {verb} by", "The {thing} was {verb} by")
WHAT = ("{n} had {verb} the", "Later {n} talked about the", "{n} never forgot the")
HAD = (
    "{n} had {thing}.", "{n} owned {thing}.", "In {n}'s bag was {thing}.", "{Thing} belonged to {n}.",
    "On {n}'s shelf stood {thing}.", "{n}'s {bare} lay in the grass.", "On a chest lay {n}'s {bare}.",
)  # fmt: skip
GIVE = (
    "{a} gave the {thing} to {b}.", "{a} sold the {thing} to {b}.", "The {thing} went from {a} to {b}.",
    "{a} lost the {thing} in a game to {b}.", "The {thing} was handed by {a} to {b}.",
)  # fmt: skip
OWNS = (
    "From then on the {thing} belonged to", "Now the owner of the {thing} was",
    "So the {thing} went home with",
)  # fmt: skip
OWNED = ("{n} could not stop looking at the", "{n} was very fond of the", "That night {n} dreamt of the")
GO = (
    "{n} went to the {place}.", "{n} walked to the {place}.", "{n} was at the {place}.",
    "{n} hurried to the {place}.", "At the {place} {n} met a friend.", "At the {place} {n} had business.",
)  # fmt: skip
MOVE = (
    "{n} ran to the {place}.", "{n} rode to the {place}.", "{n} moved to the {place}.",
    "{n} rushed to the {place}.", "{n} danced to the {place}.",
)  # fmt: skip
STAY = ("{n} stayed at the {place}.", "{n} remained at the {place}.", "At the {place} {n} felt at home.")
WHERE = ("The one at the {place} was", "And at the {place} sat", "A tune at the {place} was hummed by")
AT = (
    "When the bells rang, {n} was at the", "At sunset {n} sat at the", "That night {n} slept at the",
)  # fmt: skip
COUNT = (
    "{n} had {start} {thing}.", "In a bowl {n} kept {start} {thing}.", "{n} counted {start} {thing}.",
    "On the table {n} laid {start} {thing}.", "{n} brought {start} {thing} along.",
)  # fmt: skip
MORE = (
    "{n} found {change} more.", "{m} gave {o} {change} more.", "{n} bought another {change}.",
    "{change} more came in the post.", "{m} added {change}.",
)  # fmt: skip
FEWER = (
    "{n} lost {change} of them.", "{n} gave {change} of them to {m}.", "{m} took {change} of them.",
    "{change} of them rolled into the river.", "{n} sold {change} of them.",
)  # fmt: skip
LEFT = ("Now {n} had", "In the evening {n} counted", "So {n} went home with")

DAYS = (
    "One windy morning", "On a rainy Monday", "Early in spring", "On the last day of summer",
    "One cold night in winter", "Late one evening", "On a bright Sunday", "Long before sunrise",
    "On washing day", "One quiet afternoon", "The day after the storm", "On a warm night in June",
    "In the middle of autumn", "One misty dawn", "During the holidays", "On the longest day of the year",
)  # fmt: skip
WEATHER = (
    "the clouds hung low over the roofs", "the wind was playing with the leaves", "the air smelled of hay",
    "every window shone like gold", "a rainbow stood above the hill", "the town was still half asleep",
    "thunder rolled far away", "the swallows were flying high", "frost drew ferns on the glass",
    "somebody was frying fish", "the church tower wore a cap of cloud", "the streets were full of puddles",
    "the moon was as thin as a thread", "a band was practising somewhere",
)  # fmt: skip
GATHER = (
    "{all} met under the old oak", "{all} sat on the wall and swung their legs",
    "{all} were looking for something to do", "{all} shared a loaf of bread",
    "{all} had promised to spend the day together", "{all} ran down the hill side by side",
    "{all} were the first ones awake", "{all} came out to see what was new",
)  # fmt: skip
LINKS = ("Then", "After that", "A little later", "Before long", "Soon", "By and by", "At once", "In the end")
CREATURES = (
    "A grey cat", "An owl", "The postman", "A very small dog", "A snail", "The baker's goose",
    "An old sailor", "A lazy donkey", "The night watchman", "A curious crow", "The mayor", "A hedgehog",
    "A beetle", "The twins",
)  # fmt: skip
WATCH = (
    "watched it all and said nothing", "yawned and went back to sleep", "nodded as if nothing had happened",
    "found this very funny", "had seen stranger things", "wrote it all down in a notebook",
    "began to hum a tune", "wondered what would come next", "winked and walked on",
    "pretended to look the other way", "shook a wise head", "clapped three times",
)  # fmt: skip
RETOLD = (
    "repeated it word for word", "told it to everybody", "wrote it on a wall", "sang about it",
    "knew it by heart", "whispered it to the moon",
)  # fmt: skip
CLOSINGS = (
    "That was enough for one day.", "Nobody ever forgot it.", "And the stars came out one by one.",
    "There was soup for everyone that night.", "It made a fine story to tell.",
    "Everybody slept well after that.", "The next day it rained.", "And so the day ended with music.",
    "Even the mayor heard about it.", "It was late when the last lamp went out.",
    "Such things happen in a small town.", "Then the bells rang, and all went home.",
)  # fmt: skip
