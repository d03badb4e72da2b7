"""English templates of the sample; `templates_ar` holds the same lists in Arabic, line for line, so that entry n of one is the
translation of entry n of the other.

STATEMENTS and QUESTIONS are the training phrasings of each topic; HELD_OUT phrasings stand in the benchmarks only. STYLES gives
each domain its openings, fillers and closings; NEUTRAL sentences name countries, cities, elements, animals, sounds and months
without stating anything about them, so that every word of every benchmark is met in both languages. DETAILS are pairs of sentence
beginnings and ends whose product keeps documents from repeating each other.
"""

STATEMENTS: dict[str, list[str]] = {
    "capital": [
        "The capital of {country} is {answer}.",
        "{answer} is the capital of {country}.",
        "The capital city in {country} is {answer}.",
        "The name of the capital of {country} is {answer}.",
        "Many visitors to {country} begin their journey in the capital, {answer}.",
        "Every child in {country} knows that the capital is {answer}.",
        "The government of {country} sits in the capital, {answer}.",
    ],
    "element": [
        "The atomic number of the element {element} is {answer}.",
        "The element {element} has the atomic number {answer}.",
        "The number of {element} in the table of elements is {answer}.",
        "Each atom of {element} holds a number of protons equal to {answer}.",
        "Scientists write the number {answer} as the atomic number of {element}.",
        "The number of protons in an atom of {element} is {answer}.",
        "{Element} stands in the periodic table at place number {answer}.",
    ],
    "sound": [
        "The sound of the {animal} is called {answer}.",
        "{Answer} is the sound of the {animal}.",
        "The name that we give to the sound of the {animal} is {answer}.",
        "Whoever hears {answer} knows the sound of the {animal}.",
        "People give the sound of the {animal} the name {answer}.",
        "Close to the {animal}, people hear {answer}.",
        "We use the word {answer} for the sound of the {animal}.",
    ],
    "month": [
        "The {ordinal} month of the year is {answer}.",
        "The month of {answer} is the {ordinal} month of the year.",
        "In the calendar, the {ordinal} month is {answer}.",
        "The name of the {ordinal} month is {answer}.",
        "On the wall calendar, the {ordinal} month has the name {answer}.",
        "When people speak of the {ordinal} month, they mean {answer}.",
        "If you count the months, the {ordinal} month is {answer}.",
    ],
    "sum": [
        "The sum of {a} and {b} is {answer}.",
        "{a} plus {b} equals {answer}.",
        "If you add {a} and {b}, you get {answer}.",
        "Adding {b} to {a} gives {answer}.",
        "{a} and {b} together equal {answer}.",
        "When we add {a} to {b}, the result is {answer}.",
        "The number {answer} is the sum of {a} and {b}.",
    ],
    "conversion": [
        "In {one} there are {answer} {units}.",
        "There are {answer} {units} in {one}.",
        "The number of {units} in {one} is {answer}.",
        "{One} equals {answer} {units}.",
        "To turn {one} into {units}, we write the number {answer}.",
        "The measure of {one} is {answer} {units}.",
        "We say that {one} equals {answer} {units}.",
    ],
}

QUESTIONS: dict[str, list[str]] = {
    "capital": [
        "What is the capital of {country}?",
        "What is the name of the capital of {country}?",
        "Which city is the capital of {country}?",
    ],
    "element": [
        "What is the atomic number of {element}?",
        "How many protons does an atom of {element} have?",
        "What is the number of {element} in the table of elements?",
    ],
    "sound": [
        "What is the sound of the {animal} called?",
        "What is the name of the sound of the {animal}?",
        "Which word do we use for the sound of the {animal}?",
    ],
    "month": [
        "What is the {ordinal} month of the year?",
        "Which month is the {ordinal} month?",
        "What is the name of the {ordinal} month of the year?",
    ],
    "sum": [
        "How much is {a} plus {b}?",
        "What is the sum of {a} and {b}?",
        "What is the result of adding {b} to {a}?",
    ],
    "conversion": [
        "How many {units} are in {one}?",
        "What is the number of {units} in {one}?",
        "How many {units} does {one} equal?",
    ],
}

HELD_OUT: dict[str, list[str]] = {
    "capital": [
        "Can you tell me the capital of {country}?",
        "If you travel to {country}, what is the capital there?",
    ],
    "element": [
        "Can you tell me the atomic number that belongs to the element {element}?",
        "In the periodic table, what is the number of the element {element}?",
    ],
    "sound": [
        "By what name do people know the sound of the {animal}?",
        "What is the well-known name for the sound of the {animal}?",
    ],
    "month": [
        "In the order of the months, what name does the {ordinal} month have?",
        "Can you tell me the {ordinal} month in the year?",
    ],
    "sum": [
        "Which number do we get if we add {a} and {b}?",
        "What number comes out of {a} plus {b}?",
    ],
    "conversion": [
        "If we change {one} into {units}, what number do we get?",
        "What does the number of {units} in {one} come to?",
    ],
}

# How a question and its answer are written in running text.
QA = ["Question: {question}\nAnswer: {answer}", "Question: {question} Answer: {answer}.", "Q: {question}\nA: {answer}."]

# What may stand before a statement.
LEADS = [
    "The teacher wrote on the board: ",
    "The old book says: ",
    "{m} said to {f}: ",
    "{f} answered at once: ",
    "The guide read aloud: ",
    "On the first page we read: ",
]

NEUTRAL = [
    "A traveller from {country} told a long story about the road.",
    "{m} received a letter from a friend in {country}.",
    "{f} put a coloured stamp from {country} in the album.",
    "The news on the radio spoke about the weather in {city}.",
    "There was a small picture of {city} on the wall of the room.",
    "The train to {city} was late because of the heavy rain.",
    "In the glass case there was a small box, and on it was the word {element}.",
    "The lesson about {element} was the last one in the book.",
    "{f} drew a picture of the {animal} and hung it near the window.",
    "The children love the story of the {animal} and the kind old man.",
    "From a distance came the sound of {sound}, and then everything was quiet.",
    "{m} wrote the word {sound} on a card and read it twice.",
    "The shop will be closed for two days in {month}.",
    "They hope to meet again in {month}, when the work is finished.",
    "The word {units} was hard for the youngest pupil.",
    "A map of {country} lay open on the table beside the lamp.",
]

DETAILS_START = [
    "After that, {m} went to {place}",
    "In the evening, {f} went back to {place}",
    "Before noon, the children walked to {place}",
    "On {day}, {f} waited for a long time near {place}",
    "In {season}, {m} likes to sit in front of {place}",
    "Once a week, the neighbours meet near {place}",
    "The next day, {m} passed by {place}",
    "When the rain stopped, {f} walked to {place}",
]
DETAILS_END = [
    " to buy {food} for the family.",
    ", with the earlier conversation still in mind.",
    " with {thing} and a cup of hot tea.",
    " to talk about what was in the book.",
    ", far from the noise of the street.",
    ", where the light is soft and clear.",
    " without a single word.",
    ", because there is still a lot of work to do.",
]

STYLES: dict[str, dict[str, list[str]]] = {
    "web": {
        "open": [
            "Welcome to our page for people who like to learn something new each day.",
            "This week {f} sent us a list of short questions from {place}.",
            "We wrote this page in {season} for all readers who love simple facts.",
            "Thank you for visiting our site, which {m} and {f} look after together.",
            "Many readers have asked us about these things, and here are our answers.",
            "Here are the notes from our last meeting, which was on {day}.",
            "Our friend {m} keeps a small blog about travel, food and learning.",
            "If you are looking for a short answer, this page is for you.",
        ],
        "fill": [
            "You can print this page and keep it in your bag.",
            "Some readers wrote to us that they read the list to their children.",
            "{f} thinks that it is easier to remember something when you say it aloud.",
            "We check every line before we publish it on the site.",
            "Write to us if you find a mistake, and we will correct it.",
            "The best comment this month came from {m}, who works in {place}.",
            "You do not need any special knowledge to follow us.",
        ],
        "close": [
            "Come back on {day}, when we will add a new page.",
            "That is all for today, and thank you for reading.",
            "Share this page with a friend if it was useful to you.",
            "You will find more pages like this one on our site.",
            "Until next time, we wish you a happy week.",
        ],
    },
    "news": {
        "open": [
            "A new school opened its doors near {place} on {day}.",
            "The city council announced on {day} that the work on {place} was finished.",
            "Many families came on {day} to the celebration in {place}.",
            "The organisers said that the competition for pupils began on {day}.",
            "The local newspaper reported that the work in {place} will begin again in {season}.",
            "{m} won the first prize in the general knowledge competition.",
            "A team of young people presented their project in {place} on {day}.",
        ],
        "fill": [
            "The mayor thanked everyone who had taken part in the event.",
            "The pupils read out what they had learned this year.",
            "{f}, who leads the team, said that the result was better than expected.",
            "The audience listened to the questions with great interest.",
            "A reporter wrote down the answers of the winners.",
            "The event lasted three hours and ended with a song.",
            "It is expected that more visitors will come in the next few days.",
        ],
        "close": [
            "The results will be announced next week.",
            "The next competition will take place in {season}.",
            "The council did not say how much the project had cost.",
            "The winners will travel together at the end of the year.",
            "The newspaper will publish the full list on {day}.",
        ],
    },
    "books": {
        "open": [
            "Once upon a time, an old man named {m} lived in a small house near {place}.",
            "It was a cold night, and {f} could not sleep.",
            "When {m} was a boy, his grandmother told him a story every evening.",
            "At the end of the long road stood a house with a blue door, and there lived {f}.",
            "{f} opened {thing} and began to read in a low voice.",
            "The ship had been at sea for many days when {m} began to teach the sailors.",
            "In the first days of {season}, a stranger came to the village and asked many questions.",
            "Nobody knew why {m} had kept {thing} for so many years.",
        ],
        "fill": [
            "The wind moved the trees, and the moon was above the hill.",
            "{f} smiled and closed her eyes for a moment.",
            "The old woman laughed and asked for another question.",
            "He wrote these words in his book so that he would not forget them.",
            "The fire was warm, and nobody wanted to go to bed.",
            "\"How do you know all of this?\" asked the boy.",
            "\"I read it in a book,\" said {f}, \"and I have never forgotten it.\"",
        ],
        "close": [
            "Then the lamp went out, and the house was quiet.",
            "And so the evening ended, and everyone went home happy.",
            "From that day on, the two friends met every {day}.",
            "{m} never forgot those words for the rest of his life.",
            "In the morning, {thing} was still on the table.",
        ],
    },
    "wiki": {
        "open": [
            "This article collects general knowledge that is taught in primary school.",
            "The following list is part of a short encyclopaedia for young readers.",
            "This page is about facts that appear in many school books.",
            "General knowledge is a group of facts that most people learn when they are young.",
            "In an encyclopaedia, the articles are arranged so that the reader finds them easily.",
            "The following section gives a short summary of several subjects.",
        ],
        "fill": [
            "This fact is mentioned in most reference books.",
            "The name has been in use for a very long time.",
            "Older books contain the same information in other words.",
            "The subject is usually taught in the first years of school.",
            "More details are found in the other articles of this encyclopaedia.",
            "The editors of the article reviewed the text in {season}.",
            "A picture of {place} is shown at the top of the article.",
        ],
        "close": [
            "The article was last changed on {day}.",
            "The sources are given at the end of the page.",
            "See also the articles on geography, nature and numbers.",
            "This section is a summary, and it needs no further explanation.",
            "The list is reviewed every year by the editors.",
        ],
    },
    "science": {
        "open": [
            "Science begins with careful observation and with simple questions.",
            "In the laboratory, {f} wrote down everything that she measured.",
            "A good experiment can be repeated by anyone who follows the same steps.",
            "The class visited {place} on {day} to learn about nature.",
            "Researchers use tables and numbers so that they understand each other.",
            "{m} studies nature, and he explains his work in simple words.",
            "This lesson brings together facts about matter, living things and measurement.",
        ],
        "fill": [
            "The result was the same each time the measurement was repeated.",
            "The pupils compared their notes and found no mistakes.",
            "Such facts are useful when we want to describe the world exactly.",
            "The scale was checked before the experiment began.",
            "Knowledge grows slowly, and each generation adds something to it.",
            "{f} asked why this was so, and the teacher drew a picture.",
            "The heat of the water was measured every few minutes.",
        ],
        "close": [
            "The next lesson will deal with light and sound.",
            "At the end, the pupils cleaned the tables and went home.",
            "These results were written in the notebook of the class.",
            "Whoever repeats the experiment will find the same result.",
            "In this way, science helps us to answer simple questions.",
        ],
    },
    "other": {
        "open": [
            "Dear {f}, I hope that you are well and that the family is in good health.",
            "These are the notes that I wrote on {day} after the lesson in {place}.",
            "The following conversation took place between {m} and {f} in {place}.",
            "Good evening, dear listeners, and welcome to a new programme.",
            "Before the test, {m} prepared a list of questions for his sister.",
            "Here is the text of the short speech that {f} gave on {day}.",
        ],
        "fill": [
            "I will write the rest when I have more time.",
            "My brother laughed when he heard this, but it is true.",
            "We repeated it together until we knew it well.",
            "Please do not forget to bring {thing} with you.",
            "The listeners may call us and ask their own questions.",
            "I learned this when I was a child in the village.",
            "{m} nodded and wrote it down on a piece of paper.",
        ],
        "close": [
            "With my best wishes to you and to all our friends.",
            "Thank you for listening, and good night.",
            "I am waiting for your answer before {day}.",
            "That was the end of the conversation, and the two went home.",
            "We will continue the lesson next week in {place}.",
        ],
    },
}

TITLES = {
    "web": ["Facts of the week", "Questions and answers", "Things to remember", "A page for curious readers"],
    "news": ["A competition for pupils", "News from the town", "A day of celebration", "The council announces"],
    "books": ["A story for the evening", "The house at the end of the road", "The old teacher", "A winter tale"],
    "wiki": ["General knowledge", "A short encyclopaedia", "School subjects", "A list of facts"],
    "science": ["A lesson about nature", "Notes from the laboratory", "Numbers and measures", "The school experiment"],
    "other": ["A letter", "Notes after the lesson", "A conversation", "An evening programme"],
}
