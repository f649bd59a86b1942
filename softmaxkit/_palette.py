"""The colours of every picture: told apart by the colour-blind, and most of them in grey.

Okabe and Ito 2008, https://jfly.uni-koeln.de/color/, without the yellow, too pale for a white page.
A picture never says anything by colour alone: markers, strokes or words say it, too.
"""

BLACK = "#000000"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREY = "#7F7F7F"
