"""
VGGSound's labels in other words: what AudioSet calls them, what one sees of them, and which label's picture stands in.

The labels are those of VGGSound (Chen et al., ICASSP 2020; CC BY 4.0) with their original spelling, the names those of
AudioSet's ontology (Gemmeke et al., ICASSP 2017; CC BY 4.0).
"""

from collections.abc import Sequence
from typing import NamedTuple


class Sound(NamedTuple):
    """
    A label of VGGSound.

    Attributes:
        label (`str`): As VGGSound has it.
        audioset (`tuple[str, ...]`): AudioSet's names of it, the best first; none where AudioSet has no class that
            means it and nothing else.
        phrase (`str`): What one sees, such as "a dog barking".
        drawn_like (`str`): The label whose picture stands in for a model that has not learnt to draw this one; empty
            for those that avgas-mini learnt to draw, and for those it does not know.
    """

    label: str
    audioset: tuple[str, ...]
    phrase: str
    drawn_like: str


# Sorted by label: the index is the class index of VGGSound's own data loader.
SOUNDS = (
    Sound("air conditioning noise", ("Air conditioning",), "an air conditioner", "wind noise"),
    Sound("air horn", ("Air horn, truck horn",), "an air horn", "foghorn"),
    Sound("airplane", ("Aircraft", "Fixed-wing aircraft, airplane"), "an airplane", ""),
    Sound("airplane flyby", ("Aircraft", "Fixed-wing aircraft, airplane", "Jet engine"), "an airplane flying by", ""),
    Sound("alarm clock ringing", ("Alarm clock",), "an alarm clock ringing", "telephone bell ringing"),
    Sound("alligators, crocodiles hissing", (), "an alligator", ""),
    Sound("ambulance siren", ("Ambulance (siren)",), "an ambulance", "police car (siren)"),
    Sound("arc welding", (), "a welder with sparks", ""),
    Sound("baby babbling", ("Babbling",), "a baby babbling", "female speech, woman speaking"),
    Sound("baby crying", ("Baby cry, infant cry",), "a crying baby", "people screaming"),
    Sound("baby laughter", ("Baby laughter",), "a laughing baby", "people belly laughing"),
    Sound("baltimore oriole calling", (), "a Baltimore oriole", ""),
    Sound("barn swallow calling", (), "a barn swallow", ""),
    Sound("basketball bounce", ("Basketball bounce",), "a basketball", "door slamming"),
    Sound("bathroom ventilation fan running", (), "a ventilation fan", ""),
    Sound("beat boxing", ("Beatboxing",), "a person beatboxing", "male speech, man speaking"),
    Sound("bee, wasp, etc. buzzing", ("Bee, wasp, etc.",), "a bee", ""),
    Sound(
        "bird chirping, tweeting",
        ("Chirp, tweet", "Bird vocalization, bird call, bird song", "Bird"),
        "a small bird singing",
        "",
    ),
    Sound("bird squawking", ("Squawk",), "a squawking bird", "crow cawing"),
    Sound(
        "bird wings flapping", ("Bird flight, flapping wings",), "a bird flapping its wings", "bird chirping, tweeting"
    ),
    Sound("black capped chickadee calling", (), "a chickadee", ""),
    Sound("blowtorch igniting", (), "a blowtorch", ""),
    Sound("bouncing on trampoline", (), "a person on a trampoline", ""),
    Sound("bowling impact", (), "bowling pins", ""),
    Sound("bull bellowing", ("Bellow",), "a bull", "cow lowing"),
    Sound("canary calling", (), "a canary", ""),
    Sound("cap gun shooting", ("Cap gun",), "a cap gun", "machine gun shooting"),
    Sound("car engine idling", ("Idling",), "an idling car", "vehicle horn, car horn, honking"),
    Sound("car engine knocking", ("Engine knocking",), "a car's engine", "vehicle horn, car horn, honking"),
    Sound("car engine starting", ("Engine starting",), "a car starting", "vehicle horn, car horn, honking"),
    Sound("car passing by", ("Car passing by",), "a car driving by", "vehicle horn, car horn, honking"),
    Sound("cat caterwauling", ("Caterwaul",), "a caterwauling cat", "cat meowing"),
    Sound("cat growling", (), "a growling cat", ""),
    Sound("cat hissing", (), "a hissing cat", ""),
    Sound("cat meowing", ("Meow", "Cat"), "a cat meowing", ""),
    Sound("cat purring", ("Purr",), "a purring cat", "cat meowing"),
    Sound("cattle mooing", ("Moo", "Cattle, bovinae"), "cattle", ""),
    Sound("cattle, bovinae cowbell", ("Cowbell",), "a cow with a bell", "cow lowing"),
    Sound("cell phone buzzing", (), "a cell phone", ""),
    Sound("chainsawing trees", ("Chainsaw",), "a chainsaw", "chopping wood"),
    Sound("cheetah chirrup", (), "a cheetah", ""),
    Sound("chicken clucking", ("Cluck", "Chicken, rooster"), "a hen", ""),
    Sound("chicken crowing", ("Crowing, cock-a-doodle-doo",), "a rooster crowing", ""),
    Sound("child singing", ("Child singing",), "a child singing", "female speech, woman speaking"),
    Sound(
        "child speech, kid speaking",
        ("Child speech, kid speaking",),
        "a child talking",
        "female speech, woman speaking",
    ),
    Sound("children shouting", ("Children shouting", "Children playing"), "children shouting", "people screaming"),
    Sound("chimpanzee pant-hooting", (), "a chimpanzee", ""),
    Sound("chinchilla barking", (), "a chinchilla", ""),
    Sound("chipmunk chirping", (), "a chipmunk", ""),
    Sound("chopping food", ("Chopping (food)",), "a knife chopping vegetables", "chopping wood"),
    Sound("chopping wood", ("Chop",), "an axe chopping wood", ""),
    Sound("church bell ringing", ("Church bell", "Change ringing (campanology)"), "a church bell", ""),
    Sound("civil defense siren", ("Civil defense siren",), "a siren on a pole", "foghorn"),
    Sound("cow lowing", ("Moo", "Cattle, bovinae"), "a cow", ""),
    Sound("coyote howling", ("Howl",), "a howling coyote", "dog barking"),
    Sound("cricket chirping", ("Cricket",), "a cricket", ""),
    Sound("crow cawing", ("Caw", "Crow"), "a crow", ""),
    Sound("cuckoo bird calling", (), "a cuckoo", ""),
    Sound("cupboard opening or closing", ("Cupboard open or close",), "a cupboard", "door slamming"),
    Sound("cutting hair with electric trimmers", (), "hair clippers", ""),
    Sound("dinosaurs bellowing", (), "a dinosaur", ""),
    Sound("disc scratching", ("Scratching (performance technique)",), "a turntable", "playing electric guitar"),
    Sound("dog barking", ("Bark", "Dog", "Bow-wow"), "a dog barking", ""),
    Sound("dog baying", (), "a baying dog", ""),
    Sound("dog bow-wow", ("Bow-wow",), "a dog", ""),
    Sound("dog growling", ("Growling",), "a growling dog", "dog barking"),
    Sound("dog howling", ("Howl",), "a howling dog", ""),
    Sound("dog whimpering", ("Whimper (dog)",), "a whimpering dog", "dog barking"),
    Sound("donkey, ass braying", (), "a donkey", "horse neighing"),
    Sound("door slamming", ("Slam", "Door"), "a door", ""),
    Sound("driving buses", ("Bus",), "a bus", ""),
    Sound("driving motorcycle", ("Motorcycle",), "a motorcycle", "vehicle horn, car horn, honking"),
    Sound("driving snowmobile", (), "a snowmobile", ""),
    Sound("duck quacking", ("Quack", "Duck"), "a duck", ""),
    Sound("eagle screaming", (), "an eagle", ""),
    Sound("eating with cutlery", ("Cutlery, silverware",), "a fork and a knife", "hammering nails"),
    Sound("electric grinder grinding", (), "an angle grinder", ""),
    Sound(
        "electric shaver, electric razor shaving",
        ("Electric shaver, electric razor",),
        "an electric razor",
        "bee, wasp, etc. buzzing",
    ),
    Sound("elephant trumpeting", (), "an elephant", ""),
    Sound("eletric blender running", ("Blender",), "a blender", "helicopter"),
    Sound("elk bugling", (), "an elk", ""),
    Sound(
        "engine accelerating, revving, vroom",
        ("Accelerating, revving, vroom",),
        "a revving engine",
        "vehicle horn, car horn, honking",
    ),
    Sound("female singing", (), "a woman singing", ""),
    Sound("female speech, woman speaking", ("Speech", "Narration, monologue", "Conversation"), "a woman talking", ""),
    Sound("ferret dooking", (), "a ferret", ""),
    Sound("fire crackling", ("Fire", "Crackle"), "a campfire", ""),
    Sound("fire truck siren", ("Fire engine, fire truck (siren)",), "a fire truck", ""),
    Sound("fireworks banging", ("Fireworks",), "fireworks", "missile launch"),
    Sound("firing cannon", ("Artillery fire",), "a cannon", "missile launch"),
    Sound("firing muskets", ("Gunshot, gunfire",), "a musket", "machine gun shooting"),
    Sound("fly, housefly buzzing", ("Fly, housefly",), "a fly", "bee, wasp, etc. buzzing"),
    Sound("foghorn", ("Foghorn",), "a foghorn", ""),
    Sound("footsteps on snow", (), "footprints in snow", ""),
    Sound("forging swords", (), "a blacksmith at an anvil", ""),
    Sound("fox barking", (), "a fox", ""),
    Sound("francolin calling", (), "a francolin", ""),
    Sound("frog croaking", ("Croak", "Frog"), "a frog", ""),
    Sound("gibbon howling", (), "a gibbon", ""),
    Sound("goat bleating", ("Goat",), "a goat", "sheep bleating"),
    Sound("golf driving", (), "a golfer", ""),
    Sound("goose honking", ("Honk", "Goose"), "a goose", ""),
    Sound("hail", (), "hail", ""),
    Sound("hair dryer drying", ("Hair dryer",), "a hair dryer", "wind noise"),
    Sound("hammering nails", ("Hammer",), "a hammer", ""),
    Sound("heart sounds, heartbeat", ("Heart sounds, heartbeat",), "a heart", "playing snare drum"),
    Sound("hedge trimmer running", (), "a hedge trimmer", ""),
    Sound("helicopter", ("Helicopter",), "a helicopter", ""),
    Sound("horse clip-clop", ("Clip-clop",), "a trotting horse", "horse neighing"),
    Sound("horse neighing", ("Neigh, whinny",), "a horse neighing", ""),
    Sound("ice cracking", (), "cracking ice", ""),
    Sound(
        "ice cream truck, ice cream van", ("Ice cream truck, ice cream van",), "an ice cream truck", "driving buses"
    ),
    Sound("lathe spinning", (), "a lathe", ""),
    Sound("lawn mowing", ("Lawn mower",), "a lawn mower", "helicopter"),
    Sound("lighting firecrackers", ("Firecracker",), "firecrackers", "missile launch"),
    Sound("lions growling", (), "a growling lion", ""),
    Sound("lions roaring", ("Roaring cats (lions, tigers)", "Roar"), "a roaring lion", "cat meowing"),
    Sound("lip smacking", (), "lips", ""),
    Sound("machine gun shooting", ("Machine gun", "Fusillade"), "a machine gun", ""),
    Sound("magpie calling", (), "a magpie", ""),
    Sound("male singing", (), "a man singing", ""),
    Sound("male speech, man speaking", ("Speech", "Narration, monologue", "Conversation"), "a man talking", ""),
    Sound("metronome", (), "a metronome", ""),
    Sound("missile launch", (), "a missile", ""),
    Sound("mosquito buzzing", ("Mosquito",), "a mosquito", "bee, wasp, etc. buzzing"),
    Sound("motorboat, speedboat acceleration", ("Motorboat, speedboat",), "a motorboat", "foghorn"),
    Sound("mouse clicking", (), "a computer mouse", ""),
    Sound("mouse pattering", (), "a mouse", ""),
    Sound("mouse squeaking", ("Mouse", "Rodents, rats, mice"), "a mouse", ""),
    Sound("mynah bird singing", (), "a mynah bird", ""),
    Sound("ocean burbling", (), "the sea", ""),
    Sound("opening or closing car doors", (), "a car door", "door slamming"),
    Sound(
        "opening or closing car electric windows",
        ("Power windows, electric windows",),
        "a car window",
        "vehicle horn, car horn, honking",
    ),
    Sound("opening or closing drawers", ("Drawer open or close",), "a drawer", "door slamming"),
    Sound("orchestra", ("Orchestra",), "an orchestra", "playing violin, fiddle"),
    Sound("otter growling", (), "an otter", ""),
    Sound("owl hooting", ("Hoot", "Owl"), "an owl", ""),
    Sound("parrot talking", (), "a parrot", ""),
    Sound("penguins braying", (), "a penguin", ""),
    Sound(
        "people babbling",
        ("Hubbub, speech noise, speech babble",),
        "people talking all at once",
        "male speech, man speaking",
    ),
    Sound("people battle cry", (), "a warrior shouting", ""),
    Sound("people belly laughing", ("Belly laugh", "Laughter", "Chuckle, chortle"), "a laughing person", ""),
    Sound("people booing", (), "people booing", ""),
    Sound("people burping", ("Burping, eructation",), "a burping person", "male speech, man speaking"),
    Sound("people cheering", ("Cheering",), "a cheering crowd", "people clapping"),
    Sound("people clapping", ("Clapping", "Applause"), "clapping hands", ""),
    Sound("people coughing", ("Cough",), "a coughing person", "male speech, man speaking"),
    Sound("people crowd", ("Crowd", "Chatter"), "a crowd", "people clapping"),
    Sound("people eating", ("Chewing, mastication",), "a person eating", "male speech, man speaking"),
    Sound("people eating apple", (), "a person biting an apple", ""),
    Sound("people eating crisps", (), "a bag of crisps", ""),
    Sound("people eating noodle", (), "a bowl of noodles", ""),
    Sound("people farting", ("Fart",), "a person farting", "male speech, man speaking"),
    Sound("people finger snapping", ("Finger snapping",), "snapping fingers", "people clapping"),
    Sound("people gargling", ("Gargling",), "a person gargling", "male speech, man speaking"),
    Sound("people giggling", ("Giggle",), "a giggling person", "people belly laughing"),
    Sound("people hiccup", ("Hiccup",), "a person with hiccups", "male speech, man speaking"),
    Sound("people humming", ("Humming",), "a person humming", "female speech, woman speaking"),
    Sound("people marching", (), "marching soldiers", ""),
    Sound("people nose blowing", (), "a person blowing their nose", ""),
    Sound("people running", ("Run",), "a running person", "male speech, man speaking"),
    Sound("people screaming", ("Screaming",), "a screaming person", ""),
    Sound("people shuffling", ("Shuffle",), "shuffling feet", "male speech, man speaking"),
    Sound("people slapping", ("Slap, smack",), "a slap", "people clapping"),
    Sound("people slurping", (), "a person slurping", ""),
    Sound("people sneezing", ("Sneeze",), "a sneezing person", "male speech, man speaking"),
    Sound("people sniggering", ("Snicker",), "a sniggering person", "people belly laughing"),
    Sound("people sobbing", ("Crying, sobbing",), "a sobbing person", "people screaming"),
    Sound("people whispering", ("Whispering",), "a whispering person", "female speech, woman speaking"),
    Sound("people whistling", ("Whistling",), "a whistling person", "male speech, man speaking"),
    Sound("pheasant crowing", (), "a pheasant", ""),
    Sound("pig oinking", ("Oink", "Pig"), "a pig", ""),
    Sound("pigeon, dove cooing", ("Coo", "Pigeon, dove"), "a pigeon", "bird chirping, tweeting"),
    Sound("planing timber", (), "a wood plane", ""),
    Sound("plastic bottle crushing", (), "a crushed plastic bottle", ""),
    Sound("playing accordion", ("Accordion",), "an accordion", ""),
    Sound("playing acoustic guitar", ("Acoustic guitar",), "an acoustic guitar", ""),
    Sound("playing badminton", (), "badminton", ""),
    Sound("playing bagpipes", ("Bagpipes",), "bagpipes", "playing accordion"),
    Sound("playing banjo", ("Banjo",), "a banjo", ""),
    Sound("playing bass drum", ("Bass drum",), "a bass drum", "playing snare drum"),
    Sound("playing bass guitar", ("Bass guitar",), "a bass guitar", "playing electric guitar"),
    Sound("playing bassoon", (), "a bassoon", ""),
    Sound("playing bongo", (), "bongos", ""),
    Sound("playing bugle", (), "a bugle", ""),
    Sound("playing castanets", (), "castanets", ""),
    Sound("playing cello", ("Cello",), "a cello", "playing violin, fiddle"),
    Sound("playing clarinet", ("Clarinet",), "a clarinet", "playing flute"),
    Sound("playing congas", (), "congas", ""),
    Sound("playing cornet", (), "a cornet", ""),
    Sound("playing cymbal", ("Cymbal",), "a cymbal", "playing snare drum"),
    Sound("playing darts", (), "a dartboard", ""),
    Sound("playing didgeridoo", ("Didgeridoo",), "a didgeridoo", "playing flute"),
    Sound("playing djembe", (), "a djembe", ""),
    Sound("playing double bass", ("Double bass",), "a double bass", "playing violin, fiddle"),
    Sound("playing drum kit", ("Drum kit",), "a drum kit", "playing snare drum"),
    Sound("playing electric guitar", ("Electric guitar",), "an electric guitar", ""),
    Sound("playing electronic organ", ("Electronic organ",), "an electronic organ", "playing piano"),
    Sound("playing erhu", (), "an erhu", ""),
    Sound("playing flute", ("Flute",), "a flute", ""),
    Sound("playing french horn", ("French horn",), "a French horn", "playing trumpet"),
    Sound("playing glockenspiel", ("Glockenspiel",), "a glockenspiel", "playing piano"),
    Sound("playing gong", ("Gong",), "a gong", "church bell ringing"),
    Sound("playing guiro", (), "a guiro", ""),
    Sound("playing hammond organ", ("Hammond organ",), "a Hammond organ", "playing piano"),
    Sound("playing harmonica", ("Harmonica",), "a harmonica", "playing accordion"),
    Sound("playing harp", ("Harp",), "a harp", ""),
    Sound("playing harpsichord", ("Harpsichord",), "a harpsichord", "playing piano"),
    Sound("playing hockey", (), "hockey", ""),
    Sound("playing lacrosse", (), "lacrosse", ""),
    Sound("playing mandolin", ("Mandolin",), "a mandolin", "playing acoustic guitar"),
    Sound("playing marimba, xylophone", ("Marimba, xylophone",), "a xylophone", "playing piano"),
    Sound("playing oboe", (), "an oboe", ""),
    Sound("playing piano", ("Piano",), "a piano", ""),
    Sound("playing saxophone", ("Saxophone",), "a saxophone", ""),
    Sound("playing shofar", ("Shofar",), "a shofar", "playing trumpet"),
    Sound("playing sitar", ("Sitar",), "a sitar", "playing acoustic guitar"),
    Sound("playing snare drum", ("Snare drum", "Drum roll"), "a snare drum", ""),
    Sound("playing squash", (), "squash", ""),
    Sound(
        "playing steel guitar, slide guitar",
        ("Steel guitar, slide guitar",),
        "a steel guitar",
        "playing electric guitar",
    ),
    Sound("playing steelpan", ("Steelpan",), "a steelpan", "playing snare drum"),
    Sound("playing synthesizer", ("Synthesizer",), "a synthesizer", "playing piano"),
    Sound("playing tabla", ("Tabla",), "a tabla", "playing snare drum"),
    Sound("playing table tennis", (), "table tennis", ""),
    Sound("playing tambourine", ("Tambourine",), "a tambourine", "playing snare drum"),
    Sound("playing tennis", (), "tennis", ""),
    Sound("playing theremin", ("Theremin",), "a theremin", "playing violin, fiddle"),
    Sound("playing timbales", (), "timbales", ""),
    Sound("playing timpani", ("Timpani",), "timpani", "playing snare drum"),
    Sound("playing trombone", ("Trombone",), "a trombone", "playing trumpet"),
    Sound("playing trumpet", ("Trumpet",), "a trumpet", ""),
    Sound("playing tuning fork", ("Tuning fork",), "a tuning fork", "church bell ringing"),
    Sound("playing tympani", ("Timpani",), "timpani", ""),
    Sound("playing ukulele", ("Ukulele",), "a ukulele", "playing acoustic guitar"),
    Sound("playing vibraphone", ("Vibraphone",), "a vibraphone", "playing piano"),
    Sound("playing violin, fiddle", ("Violin, fiddle",), "a violin", ""),
    Sound("playing volleyball", (), "volleyball", ""),
    Sound("playing washboard", (), "a washboard", ""),
    Sound("playing zither", ("Zither",), "a zither", "playing harp"),
    Sound("police car (siren)", ("Police car (siren)",), "a police car", ""),
    Sound("police radio chatter", (), "a police radio", ""),
    Sound("popping popcorn", (), "popcorn", ""),
    Sound("printer printing", ("Printer",), "a printer", "typing on computer keyboard"),
    Sound("pumping water", ("Pump (liquid)",), "a water pump", "splashing water"),
    Sound("race car, auto racing", ("Race car, auto racing",), "a race car", "vehicle horn, car horn, honking"),
    Sound("railroad car, train wagon", ("Railroad car, train wagon", "Train", "Rail transport"), "a train", ""),
    Sound("raining", ("Rain", "Rain on surface", "Raindrop"), "rain", ""),
    Sound("rapping", ("Rapping",), "a rapper", "male speech, man speaking"),
    Sound("reversing beeps", ("Reversing beeps",), "a reversing truck", "driving buses"),
    Sound("ripping paper", ("Tearing",), "torn paper", "typing on computer keyboard"),
    Sound("roller coaster running", (), "a roller coaster", "railroad car, train wagon"),
    Sound("rope skipping", (), "a skipping rope", ""),
    Sound("rowboat, canoe, kayak rowing", ("Rowboat, canoe, kayak",), "a rowboat", "splashing water"),
    Sound("running electric fan", ("Mechanical fan",), "an electric fan", "wind noise"),
    Sound("sailing", ("Sailboat, sailing ship",), "a sailboat", "sea waves"),
    Sound("scuba diving", (), "a scuba diver", ""),
    Sound("sea lion barking", (), "a sea lion", "dog barking"),
    Sound("sea waves", ("Waves, surf", "Ocean"), "sea waves", ""),
    Sound("sharpen knife", (), "a knife on a whetstone", ""),
    Sound("sheep bleating", ("Bleat", "Sheep"), "a sheep", ""),
    Sound("shot football", (), "a football", ""),
    Sound("singing bowl", ("Singing bowl",), "a singing bowl", "church bell ringing"),
    Sound("singing choir", ("Choir",), "a choir", "female speech, woman speaking"),
    Sound("skateboarding", ("Skateboard",), "a skateboard", "railroad car, train wagon"),
    Sound("skidding", ("Skidding", "Tire squeal"), "a skidding car", "vehicle horn, car horn, honking"),
    Sound("skiing", (), "a skier", ""),
    Sound("sliding door", ("Sliding door",), "a sliding door", "door slamming"),
    Sound("sloshing water", ("Slosh",), "sloshing water", "splashing water"),
    Sound("slot machine", (), "a slot machine", ""),
    Sound("smoke detector beeping", ("Smoke detector, smoke alarm",), "a smoke detector", "telephone bell ringing"),
    Sound("snake hissing", ("Hiss", "Snake"), "a snake", ""),
    Sound("snake rattling", ("Rattle",), "a rattlesnake", "snake hissing"),
    Sound("splashing water", ("Splash, splatter",), "splashing water", ""),
    Sound("spraying water", ("Spray",), "spraying water", "splashing water"),
    Sound("squishing water", ("Squish",), "squishing water", "splashing water"),
    Sound("stream burbling", ("Stream",), "a stream", "splashing water"),
    Sound("strike lighter", (), "a lighter", ""),
    Sound("striking bowling", (), "bowling pins", ""),
    Sound("striking pool", (), "billiard balls", ""),
    Sound(
        "subway, metro, underground", ("Subway, metro, underground",), "a subway train", "railroad car, train wagon"
    ),
    Sound("swimming", (), "a swimmer", ""),
    Sound("tap dancing", (), "tap shoes", ""),
    Sound("tapping guitar", ("Tapping (guitar technique)",), "a guitar", "playing electric guitar"),
    Sound("telephone bell ringing", ("Telephone bell ringing", "Telephone"), "a ringing telephone", ""),
    Sound("thunder", ("Thunder", "Thunderstorm"), "lightning", ""),
    Sound("toilet flushing", ("Toilet flush",), "a toilet", "splashing water"),
    Sound("tornado roaring", (), "a tornado", ""),
    Sound("tractor digging", (), "a tractor", ""),
    Sound("train horning", ("Train horn",), "a train blowing its horn", ""),
    Sound("train wheels squealing", ("Train wheels squealing",), "train wheels", "railroad car, train wagon"),
    Sound("train whistling", ("Train whistle", "Steam whistle"), "a steam train", "train horning"),
    Sound("turkey gobbling", ("Gobble", "Turkey"), "a turkey", "chicken clucking"),
    Sound("typing on computer keyboard", ("Computer keyboard", "Typing"), "a computer keyboard", ""),
    Sound("typing on typewriter", ("Typewriter",), "a typewriter", "typing on computer keyboard"),
    Sound("underwater bubbling", (), "bubbles under water", ""),
    Sound("using sewing machines", ("Sewing machine",), "a sewing machine", "typing on computer keyboard"),
    Sound("vacuum cleaner cleaning floors", ("Vacuum cleaner",), "a vacuum cleaner", "wind noise"),
    Sound("vehicle horn, car horn, honking", ("Vehicle horn, car horn, honking", "Toot"), "a honking car", ""),
    Sound("volcano explosion", ("Eruption",), "a volcano", "fire crackling"),
    Sound("warbler chirping", (), "a warbler", ""),
    Sound("waterfall burbling", ("Waterfall",), "a waterfall", "splashing water"),
    Sound("whale calling", ("Whale vocalization",), "a whale", "sea waves"),
    Sound("wind chime", ("Wind chime",), "wind chimes", "church bell ringing"),
    Sound("wind noise", ("Wind noise (microphone)", "Wind"), "wind", ""),
    Sound("wind rustling leaves", ("Rustling leaves",), "leaves in the wind", "wind noise"),
    Sound("wood thrush calling", (), "a wood thrush", ""),
    Sound("woodpecker pecking tree", (), "a woodpecker", ""),
    Sound("writing on blackboard with chalk", (), "chalk on a blackboard", ""),
    Sound("yodelling", ("Yodeling",), "a yodeller", "male speech, man speaking"),
    Sound("zebra braying", (), "a zebra", ""),
)
VGGSOUND_LABELS = tuple(sound.label for sound in SOUNDS)
_BY_LABEL = {sound.label: sound for sound in SOUNDS}


def sound_of(label: str) -> Sound | None:
    """What is known of a label; `None` if it is none of VGGSound's."""
    return _BY_LABEL.get(label)


def drawn_like(label: str, known: Sequence[str]) -> str | None:
    """The one of the known labels as which a label is drawn: itself, or the one that stands in for it; or `None`."""
    sound = sound_of(label)
    return next((name for name in (label, sound and sound.drawn_like) if name in known), None)


def tags_of_labels(labels: Sequence[str], tags: Sequence[str]) -> list[list[int]]:
    """
    For every label the numbers of an audio classifier's tags that mean it: those of its AudioSet names, or of the
    label itself; none if there is no such tag.
    """
    numbers = {tag: number for number, tag in enumerate(tags)}
    found = []
    for label in labels:
        sound = sound_of(label)
        names = (*(sound.audioset if sound else ()), label)
        found.append([numbers[name] for name in dict.fromkeys(names) if name in numbers])
    return found


def labels_of_tags(tags: Sequence[str]) -> list[str]:
    """
    VGGSound's labels that an audio classifier has a tag for, in their order. Of labels whose tags are the same only
    the first is there: the classifier can't tell them apart.
    """
    found: dict[tuple[int, ...], str] = {}
    for label, numbers in zip(VGGSOUND_LABELS, tags_of_labels(VGGSOUND_LABELS, tags), strict=True):
        if numbers:
            found.setdefault(tuple(numbers), label)
    return list(found.values())
