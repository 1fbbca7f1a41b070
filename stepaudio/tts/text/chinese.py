"""Chinese as written -> Chinese as said: numbers, dates, money, units, signs.

Rules stand in the order in which they are tried. They read simplified and traditional text; the words they add
are simplified.
"""

from __future__ import annotations

import re

from stepaudio.tts.text import english
from stepaudio.tts.text.rules import Piece, Rules, after, before, kind_of
from stepaudio.tts.text.tables import either, table, words

# --- numbers -----------------------------------------------------------------------------------

_DIGITS = "零一二三四五六七八九"
_GROUPS = ["", "万", "亿", "万亿"]  # of four digits


def digits(text: str, one: str = "一") -> str:
    """Digit by digit: "2024" -> "二零二四". In telephone numbers one is 幺."""
    return "".join(one if c == "1" else _DIGITS[int(c)] for c in text if c.isascii() and c.isdigit())


def _group(n: int, leading: bool) -> str:
    """A number below 10000, with 两 for 2000 and, where the number begins with it, for 200."""
    said, gap = "", False
    for value, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // value % 10
        if not digit:
            gap = bool(said)
            continue
        two = digit == 2 and (value == 1000 or (value == 100 and not said and leading))
        said += ("零" if gap else "") + ("两" if two else _DIGITS[digit]) + unit
        gap = False
    return said


def cardinal(number: str | int) -> str:
    """ "10011" -> "一万零一十一"; digit by digit with a leading zero or over 16 digits."""
    text = str(number).replace(",", "")
    if len(text) > 16 or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    n = int(text)
    if n == 0:
        return "零"
    groups = []
    while n:
        n, group = divmod(n, 10000)
        groups.append(group)
    said, gap = "", False
    for index in range(len(groups) - 1, -1, -1):
        group = groups[index]
        if not group:
            gap = bool(said)
            continue
        if said and (gap or group < 1000):
            said += "零"
        gap = False
        spoken = _group(group, not said)
        if 10 <= group < 20 and (not said or index):
            spoken = spoken[1:]  # 十万, not 一十万
        if group == 2 and index and not said:
            spoken = "两"
        said += spoken + _GROUPS[index]
    # 亿 is said once: 十二万三千亿, not 十二万亿三千亿
    return re.sub(r"万亿(?=[^亿]+亿)", "万", said)


def number(text: str) -> str:
    """A plain number, with thousands separators or a decimal point."""
    whole, _, fraction = text.partition(".")
    return cardinal(whole or "0") + ("点" + digits(fraction) if fraction else "")


# Words that 两 goes with rather than 二.
_COUNTED = set(
    "个只条张位名人年天周岁块元角毛分钟小次回遍趟下场件套双对副把本册页篇首支枝根棵株朵头匹群种样类层间所座栋家门辆架艘台部颗"
    "粒片滴杯碗瓶盒包袋箱句段步口点时刻半万亿千米公里厘尺寸斤克吨升顿番阵股笔份封项道餐轮届期节课组排行列队班拨帮伙代辈侧边"
    "端者国省市县村派方手眼腿脚秒星集毫平摄瓦個張條塊雙對間棟輛顆組隊課節項屆輪頓噸歲種樣類層門兩"
)


def count(text: str, what: str) -> str:
    """A cardinal before what follows it: a lone 2 is 两 before what is counted."""
    counted = what[:1] in _COUNTED and not re.match(r"年[级級]|点\d|分之|小学", what)
    return "两" if text == "2" and counted else number(text)


# --- tables ------------------------------------------------------------------------------------

_UNITS = table("chinese", "unit")
for _unit in ("km", "m", "cm", "mm"):
    for _marks, _power in (("²", "2", "^2"), "平方"), (("³", "3", "^3"), "立方"):
        for _mark in _marks:
            _UNITS[_unit + _mark] = _power + _UNITS[_unit].replace("公里", "千米")
_PER = table("chinese", "per")
_CURRENCY = table("chinese", "currency")
_MAGNITUDES = table("chinese", "magnitude")
_SIGNS = table("chinese", "sign")
_SIGNS_IN_NAMES = table("chinese", "sign-in-name")
_SERVICES = set("110 119 120 122 114 911 12306 12315 12345 12348 10086 10010 10000 95588 95533".split())

# --- rules -------------------------------------------------------------------------------------

HAN = "\u3400-\u9fff\uf900-\ufaff"
"""Chinese characters, for use in a character class."""

_RULES = Rules(
    {
        "n": r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?",
        "end": r"(?![A-Za-z\d])",
        "half": r"(?:\s?([AaPp]\.?[Mm]\.?)(?![A-Za-z]))?",
        "month": r"(0?[1-9]|1[0-2])",
        "day": r"(3[01]|[12]\d|0?[1-9])",
        "year": r"((?:1\d|20)\d\d)",
        "to": r"\s?[-–—~]\s?",
        "unit": either(_UNITS),
        "big": r"([万亿萬億千百]|million|billion|trillion)?",
        "money": either(_CURRENCY),
        "path": r"[A-Za-z\d._~:/?#@!$&'()*+;=%-]",
        "han": f"[{HAN}]",
    }
)
_rule, _always = _RULES.at, _RULES.always
_IS_HAN = re.compile(f"[{HAN}]")


def is_han(char: str) -> bool:
    """Whether a character is Chinese."""
    return bool(_IS_HAN.match(char))


def _clause(match: re.Match[str]) -> str:
    """What stands before in the same clause."""
    return re.split(r"[,，。;；!?]", before(match, 12))[-1]


def _can_be_negative(match: re.Match[str]) -> bool:
    left = before(match, 1)
    return not re.match(r"[\w)%\]]", left) or is_han(left)


# Addresses and names


@_rule("letter", r"(?:https?|ftp)://<path>{1,2000}(?<![.:!?')])", r"www\.<path>{1,500}(?<![.:!?')])")
@_rule("letter", r"[A-Za-z\d][A-Za-z\d._%+-]{0,63}@(?:[A-Za-z\d-]{1,63}\.){1,5}[A-Za-z]{2,24}")
@_rule(
    "letter", rf"(?:[A-Za-z\d-]{{1,63}}\.){{1,5}}(?:{english.DOMAINS})<end>(?:/<path>{{0,500}}(?<![.:!?')]))?"
)
def _address(match: re.Match[str]) -> str:
    """The Latin words as in English, signs and digits in Chinese."""
    said = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^\w\s]|_", match.group()[:400]):
        if part.isalnum():
            said.append(digits(part) if part.isdigit() else english.name_part(part))
        elif part in _SIGNS_IN_NAMES:
            said.append(_SIGNS_IN_NAMES[part])
    return " ".join(said)


@_rule("letter", r"([A-GI-Za-gi-z])([24])([A-Za-z])<end>")
def _letters_to_letters(match: re.Match[str]) -> str:
    """B2B."""
    first, digit, last = match.groups()
    return f"{first.upper()} {'to' if digit == '2' else 'for'} {last.upper()}"


@_rule(
    "letter",
    r"(?:[A-Za-z] ){2,6}[A-Za-z](?![A-Za-z])",
    rf"(?i:{either(words('chinese', 'acronym'))})(?![A-Za-z])",
)
def _acronym(match: re.Match[str]) -> str:
    """ "c e o", "nba"."""
    return match.group().replace(" ", "").upper()


# Telephone numbers, versions


@_rule(
    "digit",
    r"(?:86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)|0\d{2,3}-\d{7,8}(?:-\d{1,5})?(?!\d)|[48]00-?\d{3}-?\d{4}(?!\d)",
)
@_rule("sign", r"\+\d{1,3}[- ]?\d{2,4}(?:[- ]?\d{3,4}){1,3}(?!\d)")
def _phone(match: re.Match[str]) -> str:
    groups = [digits(group, "幺") for group in re.findall(r"\d+", match.group())]
    return ("加" if match.group()[0] == "+" else "") + ",".join(groups)


def _version_words(text: str) -> str:
    parts = text.split(".")
    ip = len(parts) == 4 and all(len(part) <= 3 for part in parts)
    return "点".join(map(digits if ip else cardinal, parts))


@_rule("digit", r"\d{1,5}(?:\.\d{1,5}){3,5}(?![\d.]*\d)")
def _ip(match: re.Match[str]) -> str:
    return _version_words(match.group())


# Dates


def _date(year: str, month: str, day: str | None) -> str | None:
    if not 1 <= int(month) <= 12 or (day and not 1 <= int(day) <= 31):
        return None
    said = (digits(year) + "年" if year else "") + cardinal(int(month)) + "月"
    return said + (cardinal(int(day)) + "日" if day else "")


_NAME_OF_VERSION = re.compile(r"(?:[A-Za-z]|版本号?|版|[升更]级?新?[到至为])\s?$")


@_rule(
    "digit", r"(\d{4})([-/.·])<month>\2<day>(?!\d|[-/.·]\d)", r"(\d{2})([-/.])<month>\2<day>(?!\d|[-/.·]\d)"
)
def _year_month_day(match: re.Match[str]) -> str | None:
    if len(match.group(1)) == 2 and match.group(2) == "." and _NAME_OF_VERSION.search(before(match, 12)):
        return None
    return _date(match.group(1), match.group(3), match.group(4))


@_rule("digit", r"<day>([-/.])<month>\2<year>(?!\d)")
def _day_month_year(match: re.Match[str]) -> str | None:
    return _date(match.group(4), match.group(3), match.group(1))


@_rule("digit", r"<year>/<month>(?![\d/])")
def _year_month(match: re.Match[str]) -> str | None:
    return _date(match.group(1), match.group(2), None)


@_rule("digit", r"(0[1-9]|1[0-2])\.<year>(?!\d)")
def _month_year(match: re.Match[str]) -> str | None:
    return _date(match.group(2), match.group(1), None)


@_rule("digit", r"(0[1-9])[-/](3[01]|[12]\d|0[1-9])(?![\d/-])", r"(\d{1,2})[-/](\d{1,2})日")
def _month_day(match: re.Match[str]) -> str | None:
    return _date("", match.group(1), match.group(2))


@_rule("digit", r"\d{1,5}(?:\.\d{1,5}){2}(?![\d.]*\d)")
def _version(match: re.Match[str]) -> str:
    return _version_words(match.group())


# Times and scores


def _half_day(text: str | None) -> str:
    return "" if not text else "上午" if text[0] in "Aa" else "下午"


_SCORE_BEFORE = re.compile(r"比分|战胜|戰勝|击败|擊敗|[战戰]成|落后|领先|比值|爆冷")


@_rule("digit", r"(\d{1,2}):(\d{2})(?::(\d{2}))?<half>(?![\d:])")
def _clock(match: re.Match[str]) -> str | None:
    hour, minute, second, half = match.groups()
    if int(hour) > 24 or int(minute) > 59 or (second and int(second) > 59):
        return None
    if not second and not half and _SCORE_BEFORE.search(_clause(match)):
        return None
    if half and (int(hour) > 12 or re.search(r"上午|下午|晚上|早上|凌晨|中午", before(match, 12))):
        half = None
    said = _half_day(half) + ("两" if int(hour) == 2 else cardinal(int(hour))) + "点"
    if minute != "00" or second:
        said += ("零" if minute[0] == "0" and minute != "00" else "") + cardinal(int(minute)) + "分"
    if second:
        said += ("零" if second[0] == "0" and second != "00" else "") + cardinal(int(second)) + "秒"
    return said


@_rule("digit", r"(\d{1,4}):(\d{1,4})(?![\d:])")
def _score(match: re.Match[str]) -> str:
    return f"{cardinal(match.group(1))}比{cardinal(match.group(2))}"


@_rule("digit", r"(\d{1,2})\s?([AaPp]\.?[Mm]\.?)(?![A-Za-z])")
def _hour(match: re.Match[str]) -> str | None:
    hour, half = match.groups()
    return _half_day(half) + count(hour, "点") + "点" if int(hour) < 25 else None


# Years, months, days


@_rule("digit", r"(\d{1,4})(?:年(\d{1,2})月)?\s?(ad|AD|bc|BC|b\.c\.|B\.C\.|a\.d\.)(?![A-Za-z])")
def _era(match: re.Match[str]) -> str:
    year, month, era = match.groups()
    said = ("公元前" if "b" in era.lower() else "公元") + digits(year) + "年"
    return said + (f"{cardinal(int(month))}月" if month else "")


@_rule("digit", r"(\d{1,4})\s?年(?![级級龄齡纪紀])")
def _year(match: re.Match[str]) -> str:
    """2024年 digit by digit; 20年后 counted."""
    text, left, right = match.group(1), before(match, 12), after(match, 12)
    if len(text) == 4:
        round_number = text.endswith("000") and text != "2000"
        dated = not round_number or re.search(r"公元|西元|民国|于|於|从|自|到|至|在|[-—~]$", left[-4:])
    elif re.search(r"[公西]元前?$", left) or (len(text) == 2 and text[0] == "0"):
        dated = True
    elif len(text) == 2 and text != "10":
        lasting = re.match(r"[后後前内內来來间間代的以多]|时间|左右|期|历史|歷史", right)
        begins = not left.strip() or re.search(r"[,。;:!?，]\s?$|[于於从自在]$|\d年[-—~～到至]$", left)
        dated = not lasting and (begins or re.match(r"\d{1,2}月", right))
    else:
        dated = False
    return (digits(text) if dated else count(text, "年" + right)) + "年"


@_rule("digit", r"(\d{1,2})(月)(?!份?\d{3})", r"(\d{1,2})([日号號])")
def _month_or_day(match: re.Match[str]) -> str | None:
    most = 12 if match.group(2) == "月" else 31
    return cardinal(int(match.group(1))) + match.group(2) if 0 < int(match.group(1)) <= most else None


# Numbers that are names: digit by digit

_DIGITS_FOLLOW = re.compile(
    r"(?:号码|编号|編號|[尾卡工单單学學账帳房]号|尾號|卡號|学號|帳號|密码|密碼|[验驗][证證][码碼]|订单号|訂單號|[电電][话話]|手机|手機|[热熱][线線]|"
    r"邮编|郵編|QQ|qq|微信|车牌|航班|代码|代碼|身份[证證]|门牌|[区區][号號]|代号|型号|房间|拨打|撥打|请拨|致电|[打給给拨撥]|分机|(?<=\d)[转轉]|ID|id)"
    r"(?:号|號)?[是为為:\s]{0,3}$"
)
_CALLED = re.compile(r"[电電话話机機线線打给給拨撥转轉]")
_COUNT_FOLLOWS = re.compile(
    r"\s?[个個人元块塊年天%次名千百万亿月日号只条张米岁斤字页分小度台辆间吨克]|[,，.]\d"
)


@_rule("digit", r"\d{3,5}(?![\d.,%:])")
def _service(match: re.Match[str]) -> str | None:
    """Numbers that everybody calls, where they are called (or nothing else is said)."""
    text, left = match.group(), before(match, 12)
    called = len(text) == 5 or _DIGITS_FOLLOW.search(left) or (text in ("110", "119") and not left.strip())
    return (
        digits(text, "幺")
        if text in _SERVICES and called and not _COUNT_FOLLOWS.match(after(match, 3))
        else None
    )


@_rule("digit", r"\d{1,30}(?!\d)")
def _code(match: re.Match[str]) -> str | None:
    if len(match.group()) > 2 and re.search(r"(?<![A-Za-z])[A-Z]{1,4}$", before(match, 5)):
        return None if re.match(r"[.,]\d", after(match, 2)) else digits(match.group())  # CA1234
    follows = _DIGITS_FOLLOW.search(before(match, 12))
    if not follows or _COUNT_FOLLOWS.match(after(match, 3)):
        return None
    if len(match.group()) < 3 and re.match(r"[打給给拨撥房型转轉]", follows.group()):
        return None  # 给2: not called
    return digits(match.group(), "幺" if _CALLED.search(follows.group()) else "一")


@_rule(
    "digit",
    r"(?:315|618|911|211|985|996|007|119|110|120)(?=晚会|晚會|大促|购物|活动|期间|事件|恐|高校|大学|院校|工程|工作制|制度?|急救|报警|火警)",
    r"7-11(?!\d)",
)
def _known_by_number(match: re.Match[str]) -> str:
    return digits(match.group(), "幺")


@_rule("digit", r"([056789][05])(?=[后後](?![天年来來]))")
def _generation(match: re.Match[str]) -> str:
    return digits(match.group(1))


# Percentages, money, fractions, measures


@_rule("digit", r"()(<n>)([%‰])?(?:<to>|[到至])(<n>)([%‰])", r"()(<n>)()()\s?([%‰])")
@_rule("sign", r"(-)(<n>)()()([%‰])")
def _per_cent(match: re.Match[str]) -> str | None:
    minus, low, low_sign, high, sign = match.groups()
    if minus and not _can_be_negative(match):
        return None
    of = "百分之" if sign == "%" else "千分之"
    said = ("负" if minus else "") + of + number(low)
    return said + (f"到{of if low_sign else ''}{number(high)}" if high else "")


@_rule("sign", r"(-)?((?:US|AU|CA|HK|NT|NZ|A|C|S|R)?\$|[£€¥₩₽₹₫฿₿])\s?(<n>)(?:[-–~](<n>))?\s?<big>")
@_rule("sign", r"(-)?(\$|[£€¥])(<n>)()([kKwWmMbB])<end>")
@_rule("letter", r"()((?:US|AU|CA|HK|NT|NZ|A|C|S|R)\$|<money>)\s?(<n>)(?:[-–~](<n>))?\s?<big>")
def _money(match: re.Match[str]) -> str:
    minus, sign, amount, upper, big = match.groups()
    unit = _CURRENCY[sign]
    said = count(amount, unit[-1]) + (f"到{number(upper)}" if upper else "")
    return ("负" if minus else "") + said + (_MAGNITUDES.get(big, big) if big else "") + unit


@_rule("digit", r"(<n>)\s?<big>\s?(<money>)(?![A-Za-z\d])")
def _money_behind(match: re.Match[str]) -> str:
    amount, big, sign = match.groups()
    return number(amount) + (_MAGNITUDES.get(big, big) if big else "") + _CURRENCY[sign]


@_rule("digit", r"()(\d{1,12})\s?/\s?(\d{1,12})(?![\d/])")
@_rule("sign", r"(-)(\d{1,12})/(\d{1,12})(?![\d/])")
def _fraction(match: re.Match[str]) -> str | None:
    minus, top, bottom = match.groups()
    return ("负" if minus else "") + f"{cardinal(bottom)}分之{cardinal(top)}" if int(bottom) else None


@_rule("digit", r"(\d{1,16})分之(\d{1,16})")
def _written_fraction(match: re.Match[str]) -> str:
    return f"{cardinal(match.group(1))}分之{cardinal(match.group(2))}"


@_rule("digit", r"()(<n>)(?:<to>(<n>))?\s?(<unit>)(?:/(h|s|min|d|m³|m²|kg|L|l)(?![A-Za-z]))?<end>")
@_rule("sign", r"(-)(<n>)(?:[–—~](<n>))?\s?(<unit>)(?:/(h|s|min|d|kg|L|l)(?![A-Za-z]))?<end>")
def _measure(match: re.Match[str]) -> str | None:
    minus, low, high, unit, per = match.groups()
    lone_letter = unit in ("m", "A", "V", "N", "W", "J", "L", "g", "t", "h", "l", "s", "in")
    if (lone_letter and after(match, 1) in ("-", "'")) or (minus and not _can_be_negative(match)):
        return None
    ahead, _, name = _UNITS[unit].rpartition("~")
    if unit == "km" and per == "h":
        ahead, per = "每小时", None
    said = ("负" if minus else "") + count(low, name) + (f"到{count(high, name)}" if high else "")
    return (_PER[per] if per else ahead) + said + name


@_rule("digit", r"(<n>)([wWk])(?![A-Za-z\d])", r"(<n>)\s?([xX])(?=\s?\d)")
def _letter_behind(match: re.Match[str]) -> str:
    return number(match.group(1)) + {"w": "万", "k": "千", "x": "乘"}[match.group(2).lower()]


# Ranges and plain numbers


@_rule("digit", r"(<n>)<to>(<n>)(?![-\d])")
def _range(match: re.Match[str]) -> str:
    low, high = match.groups()
    left, right = before(match, 12), after(match, 8)
    if re.search(r"[=+×÷*]\s?$", left) or re.match(r"\s?[=+×÷*]", right):
        return f"{number(low)}减{number(high)}"
    years = len(low) == len(high) == 4 and low + high == (low + high).strip(",.")
    if years and (re.match(r"\s?年", right) or (low[:2] in ("18", "19", "20") and low < high)):
        return f"{digits(low)}到{digits(high)}"
    won = re.search(r"比分|胜|勝|负$|平$|击败|擊敗|[战戰]成", _clause(match)) and right[:1] not in _COUNTED
    # 中国1-2: at the end, with nothing that it counts.
    ends = "-" in match.group() and is_han(left[-1:]) and not right.strip() and len(low + high) < 4
    if won or (ends and not re.search(r"第|是|为|約|约|到|需要|要|有|在$", left)):
        return f"{number(low)}比{number(high)}"
    return f"{count(low, right)}到{count(high, right)}"


@_rule("digit", r"0\d+(?![.\d])")
def _leading_zero(match: re.Match[str]) -> str:
    return digits(match.group())


@_rule("digit", r"<n>")
def _number(match: re.Match[str]) -> str:
    text = match.group()
    if text.isdigit() and re.search(r"第\s?$", before(match, 2)):
        return cardinal(text).replace("两百", "二百")
    if re.match(r"[A-Za-z]", before(match, 1)):
        return number(text)  # CO2排放: 二, whatever follows
    return count(text, after(match, 4))


@_rule("sign", r"-(<n>)")
def _negative(match: re.Match[str]) -> str | None:
    return "负" + number(match.group(1)) if _can_be_negative(match) else None


@_rule("sign", rf"-(?=百分之|[{_DIGITS}])")
def _minus_before_words(match: re.Match[str]) -> str | None:
    return "负" if not re.search(r"\w$", before(match, 1)) else None


# --- signs ---------------------------------------------------------------------------------------

_always("sign", {">=": "大于等于", "<=": "小于等于", "!=": "不等于", "==": "等于", "->|=>": "到"})
_always("sign", {r"\^2(?!\d)": "的平方", r"\^3(?!\d)": "的立方"})


def _dash(char: str, left: str, right: str) -> str | None:
    if re.search(r"[\w°%)]\s?$", left) and re.match(r"\s?[\d$¥€£]", right):
        if re.search(r"[=+×÷*]\s?[\d.]+\s?$", left) or re.match(r"\s?[\d.]+\s?[=+×÷*]", right):
            return "减"
        return "到" if re.search(r"[\d年月日号點点分时時°%CF万亿元美金]\s?$", left) else None
    if char == "~" and re.match(r"\s?\d", right):
        return "约"
    return "到" if char == "~" and is_han(left[-1:]) and is_han(right[:1]) else None


def _sign(text: str, at: int) -> str | None:
    """What a single sign says in its place: None where it is silent."""
    char, left, right = text[at], text[max(0, at - 20) : at], text[at + 1 : at + 21]
    match char:
        case "-" | "–" | "—" | "~":
            return _dash(char, left, right)
        case "<" | ">":
            return ("小于" if char == "<" else "大于") if re.match(r"\s?[\w.-]", right) else None
        case "*":
            return "乘以" if re.search(r"[\w)]\s?$", left) and re.match(r"\s?[\w(]", right) else None
        case "/":
            return "每" if re.search(r"[元块美磅度米克人次吨升斤]$", left) and _A_PER.match(right) else None
        case "^":
            return "的"
        case "+" | "&" | "=" if not (left.strip() and right.strip()):
            return "加" if char == "+" and left[-1:].isalnum() else None
    return _SIGNS.get(char)


_A_PER = re.compile(either(_PER))


# --- words ---------------------------------------------------------------------------------------

_LETTERS_BEFORE_DIGITS = re.compile(r"[A-Za-z]{1,20}(?=\d)")


def read(text: str, at: int, previous_end: int) -> list[Piece]:
    """Say what stands at ``text[at]`` in a Chinese sentence; as ``english.read``."""
    char = text[at]
    if is_han(char):
        return [Piece(at, at + 1, char, "zh")]
    kind = kind_of(char)
    pieces = _RULES.read(kind, text, at, "zh")
    if pieces:
        piece = pieces[0]
        latin = kind == "letter" and not re.search(f"[{HAN}]", piece.spoken)
        return [piece._replace(language="en")] if latin else pieces
    if kind == "letter":
        letters = _LETTERS_BEFORE_DIGITS.match(text, at)
        if letters:  # iPhone15, MP3: the letters now, the digits in Chinese next
            name = letters.group()
            return [Piece(*letters.span(), " ".join(name) if name in english.FORMULAS else name, "en")]
        return english.read(text, at, previous_end, words_only=True)
    spoken = _sign(text, at)
    return [Piece(at, at + 1, spoken, "zh")] if spoken else []
