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

# color150.mat of ADEChallengeData2016, which mmseg has too; road and skyscraper share 8c8c8c
_ADE20K_COLOURS = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33
ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff
eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad
0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa
8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff
00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
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


def _colour(code: str) -> Colour:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


_IDS = _rows(_CITYSCAPES)

PRESETS: dict[str, tuple[Row, ...]] = {
    "cityscapes": _IDS,
    "cityscapes-trainid": tuple((k, name, colour) for k, (_, name, colour) in enumerate(_IDS[:19])),
    "voc": (
        *((k, name, voc_colour(k)) for k, name in enumerate(_named(_VOC))),
        (255, VOID, voc_colour(255)),
    ),
    "ade20k": (
        (0, VOID, (0, 0, 0)),
        *(
            (k, name, _colour(code))
            for k, (name, code) in enumerate(zip(_named(_ADE20K), _ADE20K_COLOURS.split(), strict=True), 1)
        ),
    ),
    "camvid": _rows(_CAMVID),
}
"""Rows of each preset; the classes have their order."""
