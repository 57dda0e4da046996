"""Makes the sample pictures of tests/data from the same packages: python make_samples.py FOLDER [--cache CACHE].

The samples are Noto Emoji of everyday things, with names and keywords; the queries are some of them in other styles.
"""

import argparse
import csv
import shutil
from pathlib import Path

import platformdirs
import resvg_py
from concepts import Concept, bare, load_concepts, slug
from sources import fetch, folder_of

# Of these groups of emojibase everything is taken but what is named below; of the others only what is named.
WHOLE_GROUPS = {3: "animals and nature", 4: "food and drink"}
LEFT_OUT = ("facing", "paw prints", "coral")
CHOSEN = """
grinning face, beaming face with smiling eyes, face with tears of joy, winking face, smiling face with heart-eyes,
smiling face with sunglasses, thinking face, sleeping face, crying face, angry face, face with medical mask, nerd
face, partying face, cowboy hat face, clown face, ghost, alien, robot, skull, grinning cat, cat with tears of joy,
crying cat, smiling cat with heart-eyes, red heart, broken heart, heart with arrow, blue heart, clapping hands, thumbs
up, waving hand, handshake, flexed biceps, eyes, ear, nose, brain, tooth, bone, baby, boy, girl, man, woman, old man,
old woman, police officer, detective, guard, construction worker, prince, princess, santa claus, superhero, mage,
fairy, vampire, mermaid, health worker, student, teacher, judge, farmer, cook, mechanic, scientist, singer, artist,
pilot, astronaut, firefighter, person in tuxedo, person with veil, person running, woman dancing, person surfing,
person swimming, person biking, person in bed, kiss, family, footprints, world map, compass, snow-capped mountain,
volcano, camping, beach with umbrella, desert, desert island, stadium, brick, house, house with garden, office
building, post office, hospital, bank, hotel, school, factory, castle, wedding, statue of liberty, church, mosque,
fountain, tent, cityscape, sunrise, carousel horse, ferris wheel, roller coaster, barber pole, circus tent,
locomotive, train, tram, bus, ambulance, fire engine, police car, taxi, automobile, pickup truck, delivery truck,
tractor, racing car, motorcycle, motor scooter, bicycle, kick scooter, skateboard, roller skate, fuel pump, wheel,
horizontal traffic light, stop sign, anchor, ring buoy, sailboat, canoe, speedboat, ship, airplane, parachute,
helicopter, satellite, rocket, flying saucer, luggage, hourglass done, watch, alarm clock, thermometer, sun, full
moon, crescent moon, ringed planet, star, shooting star, cloud, sun behind cloud, cloud with rain, cloud with snow,
cloud with lightning, tornado, rainbow, umbrella, snowflake, snowman, comet, fire, droplet, water wave,
jack-o-lantern, christmas tree, fireworks, sparkler, balloon, party popper, confetti ball, ribbon, wrapped gift,
ticket, trophy, sports medal, soccer ball, baseball, basketball, volleyball, american football, tennis, bowling, ice
hockey, ping pong, badminton, boxing glove, ice skate, fishing pole, diving mask, skis, sled, bullseye, yo-yo, kite,
crystal ball, magic wand, video game, slot machine, game die, puzzle piece, teddy bear, chess pawn, performing arts,
framed picture, artist palette, yarn, glasses, sunglasses, lab coat, necktie, t-shirt, jeans, scarf, gloves, coat,
socks, dress, bikini, handbag, backpack, running shoe, high-heeled shoe, crown, top hat, graduation cap, billed cap,
lipstick, ring, gem stone, megaphone, bell, musical notes, microphone, headphone, radio, saxophone, trumpet,
accordion, guitar, musical keyboard, violin, banjo, drum, mobile phone, telephone, battery, laptop, printer, keyboard,
computer mouse, optical disk, abacus, movie camera, television, camera, magnifying glass tilted left, candle, light
bulb, flashlight, open book, books, scroll, newspaper, coin, money bag, dollar banknote, money with wings, credit
card, envelope, package, postbox, pencil, fountain pen, paintbrush, crayon, briefcase, calendar, chart increasing,
paperclip, straight ruler, scissors, locked, key, hammer, axe, dagger, crossed swords, bomb, bow and arrow, shield,
wrench, screwdriver, gear, balance scale, magnet, ladder, test tube, microscope, telescope, syringe, pill,
stethoscope, door, mirror, window, bed, chair, toilet, shower, bathtub, razor, broom, basket, bucket, soap,
toothbrush, sponge, fire extinguisher, shopping cart, cigarette, coffin
"""
QUERIES = """
dog face, cat face, pizza, hamburger, birthday cake, guitar, bicycle, airplane, house, umbrella, sunflower, tiger
face, strawberry, banana, soccer ball, rocket, alarm clock, red heart, snowman, balloon, locomotive, crown, octopus,
camera
"""


def split(names: str) -> list[str]:
    """Return the names of a list with commas."""
    return [name.strip() for name in names.replace("\n", " ").split(",") if name.strip()]


def choose(concepts: list[Concept]) -> list[Concept]:
    """Return the concepts of the samples."""
    chosen = set(split(CHOSEN))
    missing = chosen - {concept.name.casefold() for concept in concepts}
    if missing:
        raise SystemExit(f"no concepts of these names: {sorted(missing)}")
    return [
        concept
        for concept in concepts
        if concept.name.casefold() in chosen
        or (concept.group in WHOLE_GROUPS and not any(word in concept.name for word in LEFT_OUT))
    ]


def write_pictures(cache: Path, concepts: list[Concept], folder: Path) -> None:
    """Write the samples with their table."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder_of(cache, "emoji-datasource-google") / "img/google/64"
    files = {bare(file.stem): file for file in source.glob("*.png")}
    with (folder / "pictures.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "name", "keywords"])
        for concept in concepts:
            if concept.code in files:
                name = f"{slug(concept.name)}.png"
                shutil.copyfile(files[concept.code], folder / name)
                rows.writerow([name, concept.name, "; ".join(concept.tags)])


def write_queries(cache: Path, concepts: list[Concept], folder: Path) -> None:
    """Write the queries in two styles that the samples are not of."""
    by_name = {concept.name: concept for concept in concepts}
    twemoji = folder_of(cache, "emoji-datasource-twitter") / "img/twitter/64"
    pngs = {bare(file.stem): file for file in twemoji.glob("*.png")}
    for style in ("twemoji", "fluent"):
        (folder / style).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(split(QUERIES)):
        target = f"{slug(name)}.png"
        if number % 2:
            shutil.copyfile(pngs[by_name[name].code], folder / "twemoji" / target)
        else:
            svg = folder_of(cache, "fluentui-emoji") / "icons/flat" / f"{slug(name)}.svg"
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg.read_text(encoding="utf-8"), width=96, height=96))
            (folder / "fluent" / target).write_bytes(png)


def main() -> None:
    """Parse the command line and write both folders."""
    parser = argparse.ArgumentParser(description="Make the sample pictures.")
    parser.add_argument("folder", type=Path, help="tests/data")
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("vecgate") / "model")
    arguments = parser.parse_args()
    fetch(arguments.cache)
    concepts = load_concepts(arguments.cache)
    write_pictures(arguments.cache, choose(concepts), arguments.folder / "pictures")
    write_queries(arguments.cache, concepts, arguments.folder / "queries")


if __name__ == "__main__":
    main()
