"""Tables of well-known label maps (`--labels cityscapes`): a row is value, name, and its colour if known."""

from __future__ import annotations

from ensemble_kit.spec.label_table import Colour

Row = tuple[int, str, Colour | None]

VOID = "void"
"""Name of the rows whose pixels count neither as prediction nor as truth."""

# cityscapesscripts/helpers/labels.py; ids that its evaluation ignores are void
_CITYSCAPES = """
7 road 128,64,128
8 sidewalk 244,35,232
11 building 70,70,70
12 wall 102,102,156
13 fence 190,153,153
17 pole 153,153,153
19 traffic light 250,170,30
20 traffic sign 220,220,0
21 vegetation 107,142,35
22 terrain 152,251,152
23 sky 70,130,180
24 person 220,20,60
25 rider 255,0,0
26 car 0,0,142
27 truck 0,0,70
28 bus 0,60,100
31 train 0,80,100
32 motorcycle 0,0,230
33 bicycle 119,11,32
0 void 0,0,0
1 void 0,0,0
2 void 0,0,0
3 void 0,0,0
4 void 0,0,0
5 void 111,74,0
6 void 81,0,81
9 void 250,170,160
10 void 230,150,140
14 void 180,165,180
15 void 150,100,100
16 void 150,120,90
18 void 153,153,153
29 void 0,0,90
30 void 0,0,110
"""

_VOC = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
person, pottedplant, sheep, sofa, train, tvmonitor
"""

# ADEChallengeData2016, the 150 classes of SceneParse150: 0 is none of them
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""

# label_colors.txt of CamVid, numbered by its lines from 0; its own masks are in colours
_CAMVID = """
0 Animal 64,128,64
1 Archway 192,0,128
2 Bicyclist 0,128,192
3 Bridge 0,128,64
4 Building 128,0,0
5 Car 64,0,128
6 CartLuggagePram 64,0,192
7 Child 192,128,64
8 Column_Pole 192,192,128
9 Fence 64,64,128
10 LaneMkgsDriv 128,0,192
11 LaneMkgsNonDriv 192,0,64
12 Misc_Text 128,128,64
13 MotorcycleScooter 192,0,192
14 OtherMoving 128,64,64
15 ParkingBlock 64,192,128
16 Pedestrian 64,64,0
17 Road 128,64,128
18 RoadShoulder 128,128,192
19 Sidewalk 0,0,192
20 SignSymbol 192,128,128
21 Sky 128,128,128
22 SUVPickupTruck 64,128,192
23 TrafficCone 0,0,64
24 TrafficLight 0,64,64
25 Train 192,64,128
26 Tree 128,128,0
27 Truck_Bus 192,128,192
28 Tunnel 64,0,64
29 VegetationMisc 192,192,0
30 Void 0,0,0
31 Wall 64,192,0
"""


def voc_colour(value: int) -> Colour:
    """Return PASCAL VOC's colour of a value, its bits in reverse order: neighbouring values are told apart."""
    bits = [[value >> (3 * k + channel) & 1 for k in range(3)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - k) for k, bit in enumerate(own)) for own in bits)
    return red, green, blue


def _rows(text: str) -> tuple[Row, ...]:
    rows: list[Row] = []
    for line in text.split("\n")[1:-1]:
        value, rest = line.split(" ", 1)
        name, colour = rest.rsplit(" ", 1)
        red, green, blue = map(int, colour.split(","))
        rows.append((int(value), name, (red, green, blue)))
    return tuple(rows)


def _named(text: str) -> list[str]:
    return [" ".join(name.split()) for name in text.strip().split(",")]


_IDS = _rows(_CITYSCAPES)

PRESETS: dict[str, tuple[Row, ...]] = {
    "cityscapes": _IDS,
    "cityscapes-trainid": tuple((k, name, colour) for k, (_, name, colour) in enumerate(_IDS[:19])),
    "voc": (
        *((k, name, voc_colour(k)) for k, name in enumerate(_named(_VOC))),
        (255, VOID, voc_colour(255)),
    ),
    "ade20k": ((0, VOID, None), *((k, name, None) for k, name in enumerate(_named(_ADE20K), 1))),
    "camvid": _rows(_CAMVID),
}
"""Rows of each preset; the classes have their order."""
